#!/usr/bin/env python3
"""The official Python client against an OpenAI-compatible server. usage: openai_client.py BASE_URL MODEL; prints one JSON document."""
import json, sys
import openai

client = openai.OpenAI(base_url=sys.argv[1], api_key="unused", timeout=30, max_retries=0)
model = sys.argv[2]
result = {"models": [each.id for each in client.models.list()]}
messages = [{"role": "user", "content": "the router sends each request to the worker"}]
whole = client.chat.completions.create(model=model, messages=messages, max_tokens=6)
result["chat"] = {"finish": whole.choices[0].finish_reason, "tokens": whole.usage.completion_tokens, "text": whole.choices[0].message.content}
text, finish = "", None
for chunk in client.chat.completions.create(model=model, messages=messages, max_tokens=6, stream=True, stream_options={"include_usage": True}):
    for choice in chunk.choices:
        text += choice.delta.content or ""
        finish = choice.finish_reason or finish
    if chunk.usage:
        result["usage"] = chunk.usage.completion_tokens
result["stream"] = {"finish": finish, "text": text}
completion = client.completions.create(model=model, prompt=["one", "two"], max_tokens=3)
result["completions"] = [choice.index for choice in completion.choices]
for name, call in {
    "unknown": lambda: client.chat.completions.create(model="nobody", messages=messages),
    "invalid": lambda: client.chat.completions.create(model=model, messages=messages, temperature=9),
}.items():
    try:
        call()
        result[name] = None
    except openai.APIStatusError as error:
        result[name] = {"status": error.status_code, "message": error.message, "type": type(error).__name__}
print(json.dumps(result))
