#!/usr/bin/env python3
"""Seeded random weights for the tiny model, so that different prompts get different answers. usage: make_weights.py MODEL_DIR"""
import sys
import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(20260101)
model = LlamaForCausalLM(LlamaConfig.from_pretrained(sys.argv[1]))
with torch.no_grad():
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.normal_(0, 0.5)
model.to(torch.float32).save_pretrained(sys.argv[1], safe_serialization=True)
