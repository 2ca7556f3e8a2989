#!/usr/bin/env python3
"""The official Python client of Anthropic against the Messages API, in front of `echo_worker.py`.

usage: anthropic_client.py BASE_URL MODEL TOOL_MODEL THINKING_MODEL KEYED_URL KEY LOG; prints one JSON document.
"""
import asyncio, json, sys
import anthropic

base, model, tool_model, thinking_model, keyed, key, log = sys.argv[1:8]
client = anthropic.Anthropic(base_url=base, api_key="unused", timeout=30, max_retries=0)
say = lambda text: [{"role": "user", "content": f"SAY:{text}"}]
result = {}


def taken():
    """Requests that the worker has seen."""
    with open(log) as lines:
        return sum('"ev": "request"' in line for line in lines)


whole = client.messages.create(model=model, max_tokens=50, messages=say("hello world"))
result["whole"] = {"text": whole.content[0].text, "stop": whole.stop_reason, "tokens": whole.usage.output_tokens}
with client.messages.stream(model=model, max_tokens=50, messages=say("hello END world"), stop_sequences=["END"]) as stream:
    text = "".join(stream.text_stream)
    final = stream.get_final_message()
result["stream"] = {"text": text, "stop": final.stop_reason, "sequence": final.stop_sequence, "tokens": final.usage.output_tokens}
tools = [{"name": "get_weather", "description": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}]
call = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
used = client.messages.create(model=tool_model, max_tokens=200, messages=say(call), tools=tools)
block = next(each for each in used.content if each.type == "tool_use")
result["tool"] = {"stop": used.stop_reason, "name": block.name, "input": block.input}
with client.messages.stream(model=tool_model, max_tokens=200, messages=say(call), tools=tools) as stream:
    final = stream.get_final_message()
block = next(each for each in final.content if each.type == "tool_use")
result["tool_stream"] = {"stop": final.stop_reason, "name": block.name, "input": block.input}
thought = client.messages.create(model=thinking_model, max_tokens=200, messages=say("hm ok</think>the answer"))
result["thought"] = [[block.type for block in thought.content], thought.content[0].thinking.strip(), thought.content[1].text]
with client.messages.stream(model=thinking_model, max_tokens=200, messages=say("hm ok</think>the answer")) as stream:
    result["thought_stream"] = [[block.type for block in stream.get_final_message().content]]
events = [event.type for event in client.messages.create(model=model, max_tokens=2, messages=say("hello world"), stream=True)]
result["events"] = [events[0], events[-1]]
result["models"] = client.models.retrieve(model).id
result["count"] = client.messages.count_tokens(model=model, messages=say("hello world")).input_tokens
stranger = anthropic.Anthropic(base_url=keyed, api_key="wrong", timeout=30, max_retries=0)
holder = anthropic.Anthropic(base_url=keyed, api_key=key, timeout=30, max_retries=0)
for name, call in {
    "unknown": lambda: client.messages.create(model="nobody", max_tokens=5, messages=say("x")),
    "invalid": lambda: client.messages.create(model=model, max_tokens=5, messages=say("x"), stop_sequences=[""]),
    "failing": lambda: client.messages.create(model=model, max_tokens=5, messages=say("RAISE")),
    "failing_stream": lambda: list(client.messages.create(model=model, max_tokens=5, messages=say("RAISE"), stream=True)),
    "stranger": lambda: stranger.messages.create(model=model, max_tokens=5, messages=say("x")),
    "holder": lambda: holder.messages.create(model=model, max_tokens=5, messages=say("x")),
}.items():
    try:
        call()
        result[name] = None
    except anthropic.APIStatusError as error:
        result[name] = {"status": error.status_code, "type": type(error).__name__, "kind": error.body["error"]["type"]}
try:
    client.with_options(timeout=1.0).messages.create(model=model, max_tokens=50, messages=say("HANG on"))
    result["timeout"] = None
except anthropic.APITimeoutError as error:
    result["timeout"] = type(error).__name__
LONG = "word " * 800
seen = 0
try:
    for _ in client.with_options(timeout=4.0).messages.create(model=model, max_tokens=50, messages=say("HANG on"), stream=True):
        seen += 1
    result["silent"] = None
except Exception as error:  # The client's own class, or that of its transport.
    result["silent"] = [seen > 0, "Timeout" in type(error).__name__]
with client.messages.stream(model=model, max_tokens=4000, messages=say(LONG)) as stream:
    next(iter(stream.text_stream))
raw = client.messages.create(model=model, max_tokens=4000, messages=say(LONG), stream=True)
next(event for event in raw if event.type == "content_block_delta")
raw.close()


async def cancelled():
    """A task that is cancelled while its stream runs, and one whose whole answer is awaited."""
    own = anthropic.AsyncAnthropic(base_url=base, api_key="unused", timeout=30, max_retries=0)
    begun = asyncio.Event()

    async def read():
        async with own.messages.stream(model=model, max_tokens=4000, messages=say(LONG)) as stream:
            async for _ in stream.text_stream:
                begun.set()

    streamed = asyncio.create_task(read())
    await begun.wait()
    streamed.cancel()
    before = taken()
    awaited = asyncio.create_task(own.messages.create(model=model, max_tokens=4000, messages=say(LONG)))
    while taken() == before:
        assert not awaited.done()
        await asyncio.sleep(0.02)
    awaited.cancel()
    await asyncio.gather(streamed, awaited, return_exceptions=True)
    await own.close()
    return 2


result["closed"] = 2 + asyncio.run(cancelled())
print(json.dumps(result))
