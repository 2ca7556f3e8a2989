"""Trivial Dynamo worker: streams max_tokens fixed tokens as fast as it can, and registers a model card.

A prefill worker answers with one output and a hand-over as vLLM's looks.
"""
import argparse

import uvloop
from dynamo.llm import ModelInput, ModelRuntimeConfig, ModelType, WorkerType, register_model
from dynamo.runtime import DistributedRuntime, dynamo_worker

parser = argparse.ArgumentParser()
parser.add_argument("--endpoint", required=True, help="namespace.component.endpoint")
parser.add_argument("--model-path", required=True)
parser.add_argument("--model-name", default="tiny")
parser.add_argument("--block-size", type=int, default=16)
parser.add_argument("--role", choices=["aggregated", "prefill", "decode"], default="aggregated")
parser.add_argument("--first-token", type=int, default=100, help="outputs are this id and the 49 that follow")
args = parser.parse_args()


async def generate(request, context):
    if args.role == "prefill":
        yield {"token_ids": [args.first_token], "disaggregated_params": {"kv_transfer_params": {
            "do_remote_prefill": True, "do_remote_decode": False, "remote_block_ids": list(range(len(request["token_ids"]) // args.block_size)),
            "remote_engine_id": "engine", "remote_request_id": context.id(), "remote_host": "127.0.0.1", "remote_port": 20097, "tp_size": 1,
        }}}
        return
    count = (request.get("stop_conditions") or {}).get("max_tokens") or 16
    for index in range(count - 1):
        yield {"token_ids": [args.first_token + index % 50]}
    yield {"token_ids": [args.first_token - 1], "finish_reason": "length"}


ROLES = {
    "aggregated": (WorkerType.Aggregated, ModelType.Chat | ModelType.Completions, None),
    "prefill": (WorkerType.Prefill, ModelType.Empty, [[WorkerType.Decode]]),
    "decode": (WorkerType.Decode, ModelType.Chat | ModelType.Completions, [[WorkerType.Prefill]]),
}


@dynamo_worker()
async def main(runtime: DistributedRuntime):
    endpoint = runtime.endpoint(args.endpoint)
    config = ModelRuntimeConfig()
    config.total_kv_blocks = 100_000
    config.max_num_seqs = 1024
    config.max_num_batched_tokens = 65_536
    worker_type, model_type, needs = ROLES[args.role]
    await register_model(
        ModelInput.Tokens, model_type, endpoint, args.model_path, args.model_name,
        kv_cache_block_size=args.block_size, runtime_config=config, worker_type=worker_type, **({} if needs is None else {"needs": needs}),
    )
    await endpoint.serve_endpoint(generate, graceful_shutdown=False)


if __name__ == "__main__":
    uvloop.run(main())
