#!/usr/bin/env python3
"""A worker whose models say what the client wants: of the last user message, what follows "SAY:", token by token.

usage: echo_worker.py --model-path DIR --log FILE MODEL...; a MODEL is NAME[,tool=PARSER][,reasoning=PARSER] for chat and completions, or
NAME,embed=tokens|text for embeddings. Every model has an endpoint of its own. Each request is one line of JSON in FILE.
"""
import argparse, asyncio, base64, json, os, signal, struct
from dynamo.common.utils.runtime import create_runtime
from dynamo.llm import ModelInput, ModelRuntimeConfig, ModelType, WorkerType, register_model
from tokenizers import Tokenizer


def log(path, **fields):
    with open(path, "a", buffering=1) as out:
        out.write(json.dumps(fields, default=lambda o: {"$bytes": o.hex()} if isinstance(o, (bytes, bytearray)) else repr(o)) + "\n")


class Chat:
    def __init__(self, args, name, delay):
        self.args, self.name, self.delay = args, name, delay
        self.tokenizer = Tokenizer.from_file(os.path.join(args.model_path, "tokenizer.json"))

    def answer(self, token_ids):
        prompt = self.tokenizer.decode(token_ids, skip_special_tokens=False)
        said = prompt.rpartition("SAY:")[2] if "SAY:" in prompt else "Hello there"
        return said.split("<|end|>")[0]

    async def generate(self, request, context):
        log(self.args.log, ev="request", model=self.name, id=context.id(), metadata=dict(context.metadata.items()), request=request)
        text = self.answer(request["token_ids"])
        if text.startswith("RAISE"):
            raise RuntimeError("on purpose")
        if text.startswith("REFUSE"):
            raise ValueError("refused on purpose")
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        limit = (request.get("stop_conditions") or {}).get("max_tokens") or 4096
        shown = ids[:limit]
        usage = {"prompt_tokens": len(request["token_ids"]), "completion_tokens": len(shown), "total_tokens": len(request["token_ids"]) + len(shown),
                 "prompt_tokens_details": {"cached_tokens": 4}}
        for index, token in enumerate(shown):
            if context.is_stopped() or context.is_killed():
                log(self.args.log, ev="cancelled", model=self.name, id=context.id())
                return
            out = {"token_ids": [token]}
            if index == len(shown) - 1:
                out["finish_reason"] = "length" if len(ids) > limit else "stop"
                out["completion_usage"] = usage
            yield out
            await asyncio.sleep(3600 if text.startswith("HANG") and index == 1 else self.delay)


class Embeddings:
    def __init__(self, args, name, form):
        self.args, self.name, self.form = args, name, form

    async def generate(self, request, context):
        log(self.args.log, ev="request", model=self.name, id=context.id(), request=request)
        width = 8
        if self.form == "tokens":
            lists = request["token_ids"]
            yield {"embeddings": [base64.b64encode(struct.pack(f"<{width}f", *(len(ids) / 4 + place for place in range(width)))).decode() for ids in lists],
                   "prompt_tokens": sum(map(len, lists)), "total_tokens": sum(map(len, lists))}
            return
        given = request["input"]
        texts = given if isinstance(given, list) and given and not isinstance(given[0], int) else [given]
        if any(text == "REFUSE" for text in texts):
            raise ValueError("refused on purpose")
        width = request.get("dimensions") or width
        data = []
        for index, text in enumerate(texts):
            vector = [len(text) / 4 + place for place in range(width)]
            coded = base64.b64encode(struct.pack(f"<{width}f", *vector)).decode()
            data.append({"object": "embedding", "index": index, "embedding": vector if self.form == "floats" else coded})
        yield {"object": "list", "data": data, "model": request["model"], "usage": {"prompt_tokens": len(texts), "total_tokens": len(texts)}}


async def main():
    p = argparse.ArgumentParser()
    p.add_argument("--model-path", required=True)
    p.add_argument("--log", required=True)
    p.add_argument("--delay", type=float, default=0.002)
    p.add_argument("models", nargs="+")
    args = p.parse_args()
    runtime, loop = create_runtime(os.environ.get("DYN_DISCOVERY_BACKEND", "file"), os.environ.get("DYN_REQUEST_PLANE", "tcp"), os.environ.get("DYN_EVENT_PLANE"))
    for sig in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sig, runtime.shutdown)
    serving = []
    for index, spec in enumerate(args.models):
        name, *settings = spec.split(",")
        options = dict(each.split("=", 1) for each in settings)
        endpoint = runtime.endpoint(f"dynamo.{name.replace('.', '-')}.generate")
        config = ModelRuntimeConfig()
        config.total_kv_blocks, config.max_num_seqs, config.max_num_batched_tokens = 1000, 16, 8192
        if "tool" in options:
            config.tool_call_parser = options["tool"]
        if "reasoning" in options:
            config.reasoning_parser = options["reasoning"]
        form = options.get("embed")
        handler = Embeddings(args, name, form) if form else Chat(args, name, args.delay)
        serving.append(asyncio.ensure_future(endpoint.serve_endpoint(handler.generate, graceful_shutdown=True)))
        await asyncio.sleep(0.1)
        kind = ModelType.Embedding if form else ModelType.Chat | ModelType.Completions
        await register_model(ModelInput.Text if form in ("text", "floats") else ModelInput.Tokens, kind, endpoint, args.model_path, name,
                             worker_type=WorkerType.Aggregated, runtime_config=config, **({} if form else {"kv_cache_block_size": 16}))
    log(args.log, ev="ready")
    await asyncio.gather(*serving)


if __name__ == "__main__":
    import uvloop
    uvloop.run(main())
