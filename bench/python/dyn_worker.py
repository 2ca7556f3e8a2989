"""Trivial Dynamo worker: streams max_tokens fixed tokens as fast as it can, and registers a model card."""
import argparse

import uvloop
from dynamo.llm import ModelInput, ModelRuntimeConfig, ModelType, WorkerType, register_model
from dynamo.runtime import DistributedRuntime, dynamo_worker

parser = argparse.ArgumentParser()
parser.add_argument("--endpoint", required=True, help="namespace.component.endpoint")
parser.add_argument("--model-path", required=True)
parser.add_argument("--model-name", default="tiny")
parser.add_argument("--block-size", type=int, default=16)
args = parser.parse_args()


async def generate(request, context):
    count = (request.get("stop_conditions") or {}).get("max_tokens") or 16
    for index in range(count - 1):
        yield {"token_ids": [100 + index % 50]}
    yield {"token_ids": [99], "finish_reason": "length"}


@dynamo_worker()
async def main(runtime: DistributedRuntime):
    endpoint = runtime.endpoint(args.endpoint)
    config = ModelRuntimeConfig()
    config.total_kv_blocks = 100_000
    config.max_num_seqs = 1024
    config.max_num_batched_tokens = 65_536
    await register_model(
        ModelInput.Tokens, ModelType.Chat | ModelType.Completions, endpoint, args.model_path, args.model_name,
        kv_cache_block_size=args.block_size, runtime_config=config, worker_type=WorkerType.Aggregated,
    )
    await endpoint.serve_endpoint(generate, graceful_shutdown=False)


if __name__ == "__main__":
    uvloop.run(main())
