#!/usr/bin/env python3
"""The official Python client on every route, in front of `echo_worker.py`.

usage: openai_routes.py BASE_URL KEYED_URL KEY LOG; models `plain`, `tools`, `thinks`, `vectors`. Prints one JSON document: per route what was said, the
class and status of every failure, and how many streams were closed in the middle.
"""
import asyncio, json, sys
import openai

base, keyed, key, log = sys.argv[1:5]
client = openai.OpenAI(base_url=base, api_key="unused", timeout=30, max_retries=0)
say = lambda text: [{"role": "user", "content": f"SAY:{text}"}]
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CHAT_TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}]
RESPONSES_TOOLS = [{"type": "function", "name": "get_weather", "parameters": WEATHER, "strict": False}]
LONG = "word " * 800
result = {}


def taken():
    """Requests that the worker has seen."""
    with open(log) as lines:
        return sum('"ev": "request"' in line for line in lines)


def chat():
    whole = client.chat.completions.create(model="plain", messages=say("hello world"), max_tokens=50)
    assert whole.choices[0].message.content == "hello world" and whole.choices[0].finish_reason == "stop", whole
    cut = client.chat.completions.create(model="plain", messages=say("hello world"), max_tokens=3)
    assert cut.choices[0].finish_reason == "length" and cut.usage.completion_tokens == 3, cut
    text, finish, usage = "", None, None
    for chunk in client.chat.completions.create(model="plain", messages=say("hello world"), max_tokens=50, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
    assert (text, finish, usage.completion_tokens) == ("hello world", "stop", whole.usage.completion_tokens)
    used = client.chat.completions.create(model="tools", messages=say(CALL), tools=CHAT_TOOLS, max_tokens=200).choices[0]
    function = used.message.tool_calls[0].function
    with client.chat.completions.stream(model="tools", messages=say("So. " + CALL), tools=CHAT_TOOLS, max_tokens=200) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion().choices[0]
    assert "tool_calls.function.arguments.delta" in kinds, kinds
    thought = client.chat.completions.create(model="thinks", messages=say("hm ok</think>the answer"), max_tokens=200).choices[0].message
    result["chat"] = {"tool": [used.finish_reason, function.name, json.loads(function.arguments)], "stream": [final.finish_reason, final.message.content.strip(), final.message.tool_calls[0].function.name],
                      "thought": [thought.reasoning_content.strip(), thought.content]}


def completions():
    whole = client.completions.create(model="plain", prompt="SAY:hello world", max_tokens=50)
    several = client.completions.create(model="plain", prompt=["SAY:one", "SAY:two"], max_tokens=50)
    text = "".join(chunk.choices[0].text for chunk in client.completions.create(model="plain", prompt="SAY:hello world", max_tokens=50, stream=True) if chunk.choices)
    result["completions"] = {"text": whole.choices[0].text, "several": [[each.index, each.text] for each in several.choices], "stream": text}


def responses():
    whole = client.responses.create(model="plain", input="SAY:hello world")
    with client.responses.stream(model="plain", input="SAY:hello world") as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    used = next(item for item in client.responses.create(model="tools", input=f"SAY:{CALL}", tools=RESPONSES_TOOLS).output if item.type == "function_call")
    with client.responses.stream(model="tools", input=f"SAY:{CALL}", tools=RESPONSES_TOOLS) as stream:
        streamed = next(item for item in stream.until_done().get_final_response().output if item.type == "function_call")
    thought = client.responses.create(model="thinks", input="SAY:hm ok</think>the answer")
    cut = client.responses.create(model="plain", input="SAY:hello world", max_output_tokens=3)
    result["responses"] = {"text": [whole.output_text, whole.status], "stream": [text, final.output_text, final.status], "tool": [used.name, json.loads(used.arguments)], "tool_stream": [streamed.name, json.loads(streamed.arguments)],
                           "thought": [[item.type for item in thought.output], thought.output_text], "cut": [cut.status, cut.incomplete_details.reason]}


def embeddings():
    floats = client.embeddings.create(model="vectors", input=["hello world", "the"])
    plain = client.embeddings.create(model="vectors", input="hello world", encoding_format="float")
    result["embeddings"] = [floats.data[0].embedding[:2], floats.data[1].embedding[:2], plain.data[0].embedding[:2]]


def models():
    result["models"] = [sorted(each.id for each in client.models.list()), client.models.retrieve("plain").id]


CALLS = {
    "chat": lambda c, text, **more: c.chat.completions.create(**{"model": "plain", "messages": say(text), **more}),
    "completions": lambda c, text, **more: c.completions.create(**{"model": "plain", "prompt": f"SAY:{text}", "max_tokens": 4000, **more}),
    "responses": lambda c, text, **more: c.responses.create(**{"model": "plain", "input": f"SAY:{text}", **more}),
    "embeddings": lambda c, text, **more: c.embeddings.create(**{"model": "vectors", "input": text, **more}),
}


def told(call):
    try:
        call()
        return None
    except openai.APIStatusError as error:
        return [type(error).__name__, error.status_code]
    except openai.APIConnectionError as error:
        return [type(error).__name__]


def errors():
    stranger = openai.OpenAI(base_url=keyed, api_key="wrong", timeout=30, max_retries=0)
    holder = openai.OpenAI(base_url=keyed, api_key=key, timeout=30, max_retries=0)
    found = {}
    for route, call in CALLS.items():
        found[route] = {
            "unknown": told(lambda: call(client, "x", model="nobody")),
            "invalid": told(lambda: call(client, "x", **({"dimensions": 0} if route == "embeddings" else {"temperature": 9}))),
            "stranger": told(lambda: call(stranger, "x")), "holder": told(lambda: call(holder, "x")),
        }
        if route != "embeddings":
            found[route]["failing"] = told(lambda: call(client, "RAISE"))
            found[route]["failing stream"] = told(lambda: list(call(client, "RAISE", stream=True)))
            found[route]["timeout"] = told(lambda: call(client.with_options(timeout=1.0), "HANG on"))
    found["memory"] = told(lambda: client.responses.create(model="plain", input="x", previous_response_id="resp_1"))
    found["model"] = told(lambda: client.models.retrieve("nobody"))
    found["nobody listens"] = told(lambda: CALLS["chat"](openai.OpenAI(base_url="http://127.0.0.1:9/v1", api_key="x", max_retries=0), "x"))
    result["errors"] = found


def waits(stream):
    """What a stream that falls silent ends with."""
    seen = 0
    try:
        for _ in stream:
            seen += 1
        return None
    except Exception as error:  # The client's own class, or that of its transport.
        return [seen > 0, "Timeout" in type(error).__name__]


def streams():
    result["silent"] = {route: waits(CALLS[route](client.with_options(timeout=4.0), "HANG on", stream=True)) for route in ("chat", "completions", "responses")}
    closed = 0
    for route in ("chat", "completions", "responses"):
        stream = CALLS[route](client, LONG, stream=True)
        for at, _ in enumerate(stream):
            if at == 4:
                break
        stream.close()
        closed += 1
    with client.chat.completions.stream(model="plain", messages=say(LONG)) as stream:
        next(iter(stream))
    closed += 1
    with client.responses.stream(model="plain", input=f"SAY:{LONG}") as stream:
        next(event for event in stream if event.type == "response.output_text.delta")
    result["closed"] = closed + 1 + asyncio.run(cancelled())


async def cancelled():
    """A task that is cancelled while its stream runs, and one whose whole answer is awaited."""
    own = openai.AsyncOpenAI(base_url=base, api_key="unused", timeout=30, max_retries=0)
    begun = asyncio.Event()

    async def read():
        async for _ in await own.chat.completions.create(model="plain", messages=say(LONG), stream=True):
            begun.set()

    streamed = asyncio.create_task(read())
    await begun.wait()
    streamed.cancel()
    before = taken()
    awaited = asyncio.create_task(own.chat.completions.create(model="plain", messages=say(LONG)))
    while taken() == before:
        assert not awaited.done()
        await asyncio.sleep(0.02)
    awaited.cancel()
    await asyncio.gather(streamed, awaited, return_exceptions=True)
    await own.close()
    return 2


for step in (models, chat, completions, responses, embeddings, errors, streams):
    step()
print(json.dumps(result))
