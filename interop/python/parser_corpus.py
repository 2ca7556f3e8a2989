#!/usr/bin/env python3
"""Records how the real frontend reads tool calls and reasoning out of a model's text.

  parser_corpus.py model DIR             writes a tiny model whose tokenizer knows the families' markers as special tokens
  parser_corpus.py worker DIR [PAIR..]   serves one model per pair of parsers of the corpus: `tool+reasoning`
  parser_corpus.py pairs CASE..          prints the pairs that some cases (`family/name`) need
  parser_corpus.py record URL FOLDER [FAMILY..]
                                         asks the frontend at URL for every case and writes FOLDER/<family>.json
  parser_corpus.py sample URL FOLDER CASE..
                                         the same for some cases

What the worker says is chosen by the request's metadata (`x-dynamo-meta-case: family/name`, `x-dynamo-meta-cut: how`):
as a model's tokens fall (the
family's markers and words are one each), every character an output of its own, or everything at once.

The whole corpus needs 70 models, more than file watchers allow in discovery by file: record it with etcd (DYN_DISCOVERY_BACKEND=etcd).
"""
import asyncio, concurrent.futures, http.client, json, os, re, sys, time
from urllib.parse import urlsplit

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from parser_cases import FAMILIES, MARKERS, ON_REQUEST, pairs

PIECE = re.compile("|".join(re.escape(marker) for marker in sorted(MARKERS, key=len, reverse=True)) + r"| ?\w+|\s+|.", re.S)
CUTS = ["tokens", "chars", "whole"]


def write_model(out):
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    os.makedirs(out, exist_ok=True)
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    own = ["<|begin|>", "<|end_of_text|>"]
    tok.train_from_iterator([], trainers.BpeTrainer(vocab_size=300, special_tokens=own, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tok.add_special_tokens([AddedToken(marker, special=True) for marker in MARKERS])
    tok.save(f"{out}/tokenizer.json")

    def write(name, value):
        with open(f"{out}/{name}", "w") as f:
            json.dump(value, f, indent=1)

    size = tok.get_vocab_size()
    write("config.json", dict(architectures=["LlamaForCausalLM"], model_type="llama", vocab_size=size, hidden_size=128,
          num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, head_dim=64, intermediate_size=256,
          max_position_embeddings=32768, rms_norm_eps=1e-5, hidden_act="silu", rope_theta=10000.0,
          tie_word_embeddings=False, bos_token_id=0, eos_token_id=1, torch_dtype="float32"))
    # `tail` stands for what a template puts behind the prompt, such as an opening <think>.
    write("tokenizer_config.json", dict(tokenizer_class="PreTrainedTokenizerFast", bos_token="<|begin|>", eos_token="<|end_of_text|>",
          model_max_length=32768, chat_template="{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
          "{% if tools %}[tools {{ tools | length }}]{% endif %}{% if add_generation_prompt %}[assistant]{{ tail }}{% endif %}"))
    write("generation_config.json", dict(bos_token_id=0, eos_token_id=1))


def find(case_id):
    family, name = case_id.split("/", 1)
    return next(case for case in {**FAMILIES, **ON_REQUEST}[family] if case["name"] == name)


class Speaker:
    """Cuts a case's text into outputs."""

    def __init__(self, model_path):
        from tokenizers import Tokenizer
        self.tokenizer = Tokenizer.from_file(os.path.join(model_path, "tokenizer.json"))
        self.markers = {t.content: i for i, t in self.tokenizer.get_added_tokens_decoder().items()}

    def outputs(self, case, cut):
        if case.get("special"):
            encoded = self.tokenizer.encode(case["text"], add_special_tokens=False)
            return self.grouped([[i] for i in encoded.ids], cut)
        if cut == "tokens":
            return [[i for char in piece for i in self.plain(char)] for piece in PIECE.findall(case["text"])]
        return self.grouped([self.plain(char) for char in case["text"]], cut)

    def grouped(self, ids, cut):
        return [[i for group in ids for i in group]] if cut == "whole" else ids

    def plain(self, char):
        return self.tokenizer.encode(char, add_special_tokens=False).ids


async def worker(model_path, wanted):
    from dynamo.common.utils.runtime import create_runtime
    from dynamo.llm import ModelInput, ModelRuntimeConfig, ModelType, WorkerType, register_model
    runtime, loop = create_runtime(os.environ.get("DYN_DISCOVERY_BACKEND", "file"), os.environ.get("DYN_REQUEST_PLANE", "tcp"), os.environ.get("DYN_EVENT_PLANE"))
    speaker = Speaker(model_path)
    log = os.environ.get("PARSER_CORPUS_LOG")

    async def generate(request, context):
        meta = dict(context.metadata.items())
        if log:
            with open(log, "a") as f:
                f.write(json.dumps({"case": meta.get("case"), "cut": meta.get("cut"), "request": request}) + "\n")
        if "case" not in meta:
            yield {"token_ids": [3], "finish_reason": "stop"}
            return
        case = find(meta["case"])
        outputs = speaker.outputs(case, meta.get("cut", "chars"))
        for at, ids in enumerate(outputs):
            last = at == len(outputs) - 1
            yield {"token_ids": ids, **({"finish_reason": case.get("finish", "stop")} if last else {})}
            # Outputs that leave together are read together.
            await asyncio.sleep(0.002)

    serving = []
    for at, (tool, reasoning) in enumerate(pair for pair in pairs() if not wanted or "+".join(pair) in wanted):
        endpoint = runtime.endpoint(f"corpus.m{at}.generate")
        config = ModelRuntimeConfig()
        config.total_kv_blocks = 1000
        config.max_num_seqs = 64
        config.max_num_batched_tokens = 8192
        if tool:
            config.tool_call_parser = tool
        if reasoning:
            config.reasoning_parser = reasoning
        serving.append(asyncio.ensure_future(endpoint.serve_endpoint(generate, graceful_shutdown=False)))
        await asyncio.sleep(0.02)
        await register_model(ModelInput.Tokens, ModelType.Chat, endpoint, model_path, f"{tool or ''}+{reasoning or ''}", worker_type=WorkerType.Aggregated,
                             kv_cache_block_size=16, runtime_config=config)
    print("ready", flush=True)
    await asyncio.gather(*serving)


TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "Weather", "parameters": {"type": "object", "properties": {
        "city": {"type": "string"}, "days": {"type": "integer"}, "metric": {"type": "boolean"}, "scale": {"type": "number"},
        "tags": {"type": "array", "items": {"type": "string"}}, "place": {"type": "object"}}, "required": ["city"]}}},
    {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}}}},
    {"type": "function", "function": {"name": "ping"}},
]


def body_of(case, stream):
    body = {"model": f"{case['tool'] or ''}+{case['reasoning'] or ''}", "messages": case.get("messages") or [{"role": "user", "content": "hello"}], "max_tokens": 8000, "stream": stream}
    if case.get("tools", True):
        body["tools"] = TOOLS
    body.update(case.get("body", {}))
    if stream:
        body["stream_options"] = {"include_usage": True}
    return body


def post(url, body, headers):
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json", **headers})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def calls_of(calls):
    return [{"name": c["function"]["name"], "arguments": c["function"]["arguments"], **id_of(c["id"])} for c in calls or []]


def id_of(given):
    """Nothing for `call-<uuid>`; the form of other ids that are made up; an id that the text holds."""
    if re.fullmatch(r"call-[0-9a-f-]{36}", given):
        return {}
    if re.fullmatch(r"[0-9a-f-]{36}", given):
        return {"idForm": "uuid"}
    return {"idForm": "call_hex"} if re.fullmatch(r"call_[0-9a-f]{24}", given) else {"id": given}


def whole_answer(text):
    answer = json.loads(text)
    choice = answer["choices"][0]
    message = choice["message"]
    usage = answer.get("usage") or {}
    return {"content": message.get("content"), "reasoning": message.get("reasoning_content"), "calls": calls_of(message.get("tool_calls")),
            "finish": choice["finish_reason"], "countsReasoning": (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") is not None}


def streamed_answer(text):
    """The chunks put together."""
    content, reasoning, calls, finish, tokens = None, None, {}, None, None
    for line in text.split("\n"):
        if not line.startswith("data: ") or line == "data: [DONE]":
            continue
        chunk = json.loads(line[6:])
        if "error" in chunk or "choices" not in chunk:
            return {"error": chunk}
        if chunk.get("usage"):
            tokens = (chunk["usage"].get("completion_tokens_details") or {}).get("reasoning_tokens")
        for choice in chunk["choices"]:
            delta = choice["delta"]
            if delta.get("reasoning_content"):
                reasoning = (reasoning or "") + delta["reasoning_content"]
            if delta.get("content"):
                content = (content or "") + delta["content"]
            for call in delta.get("tool_calls") or []:
                known = calls.setdefault(call["index"], {"id": "", "function": {"name": "", "arguments": ""}})
                known["id"] += call.get("id") or ""
                known["function"]["name"] += call["function"].get("name") or ""
                known["function"]["arguments"] += call["function"].get("arguments") or ""
            if choice.get("finish_reason"):
                finish = choice["finish_reason"]
    return {"content": content, "reasoning": reasoning, "calls": calls_of([calls[i] for i in sorted(calls)]), "finish": finish, "countsReasoning": tokens is not None}


def ask(url, family, case, cut, stream):
    for attempt in range(5):
        status, text = post(url, body_of(case, stream), {"x-dynamo-meta-case": f"{family}/{case['name']}", "x-dynamo-meta-cut": cut})
        if status == 200:
            break
        if attempt == 4:
            raise RuntimeError(f"{family}/{case['name']}: {status} {text[:300]}")
        time.sleep(1 + attempt)
    return streamed_answer(text) if stream else whole_answer(text)


def record(url, folder, families):
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        for family, cases in families.items():
            recorded = []
            asked = [[(cut, stream, pool.submit(ask, url, family, case, cut, stream)) for cut in CUTS for stream in (False, True)] for case in cases]
            for case, futures in zip(cases, asked):
                answers = {}
                for cut, stream, future in futures:
                    answer = json.dumps(future.result(), ensure_ascii=False)
                    answers.setdefault(answer, []).append(("stream." if stream else "whole.") + cut)
                plain = {"skipped": re.sub("|".join(map(re.escape, MARKERS)), "", case["text"])} if case.get("special") else {}
                recorded.append({**case, **plain, "answers": [{"by": by, **json.loads(answer)} for answer, by in answers.items()]})
            with open(os.path.join(folder, f"{family}.json"), "w") as f:
                head = json.dumps({"generator": "interop/python/parser_corpus.py", "original": "Dynamo 1.6.1", "family": family, "tools": TOOLS}, ensure_ascii=False)
                f.write(head[:-1] + ', "cases": [\n' + ",\n".join(json.dumps(case, ensure_ascii=False) for case in recorded) + "\n]}\n")
            print(f"{family}: {len(recorded)} cases", flush=True)


if __name__ == "__main__":
    command = sys.argv[1]
    if command == "model":
        write_model(sys.argv[2])
    elif command == "worker":
        import uvloop
        uvloop.run(worker(sys.argv[2], sys.argv[3:]))
    elif command == "pairs":
        print("\n".join(sorted({f"{case['tool'] or ''}+{case['reasoning'] or ''}" for case in map(find, sys.argv[2:])})))
    elif command == "sample":
        some = {}
        for case_id in sys.argv[4:]:
            some.setdefault(case_id.split("/", 1)[0], []).append(find(case_id))
        record(sys.argv[2], sys.argv[3], some)
    else:
        record(sys.argv[2], sys.argv[3], {name: {**FAMILIES, **ON_REQUEST}[name] for name in sys.argv[4:]} or FAMILIES)
