#!/usr/bin/env python3
"""The official Python client of Anthropic against the Messages API. usage: anthropic_client.py BASE_URL MODEL TOOL_MODEL; prints one JSON document."""
import json, sys
import anthropic

base, model, tool_model = sys.argv[1:4]
client = anthropic.Anthropic(base_url=base, api_key="unused", timeout=30, max_retries=0)
say = lambda text: [{"role": "user", "content": f"SAY:{text}"}]
result = {}
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
result["count"] = client.messages.count_tokens(model=model, messages=say("hello world")).input_tokens
for name, call in {
    "unknown": lambda: client.messages.create(model="nobody", max_tokens=5, messages=say("x")),
    "invalid": lambda: client.messages.create(model=model, max_tokens=5, messages=say("x"), stop_sequences=[""]),
    "failing": lambda: client.messages.create(model=model, max_tokens=5, messages=say("RAISE")),
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
print(json.dumps(result))
