#!/usr/bin/env python3
"""Writes the golden files of fixtures/text: chat templates rendered by Python's jinja2, tokenizers run by Python's tokenizers.

Usage: WARMPATH_DYNAMO_VENV/bin/python interop/python/text_golden.py [templates] [tokenizers]
Needs jinja2, transformers and tokenizers. The templates are our own; they use the constructs that public model families use.
"""
import datetime
import json
import platform
import random
import sys
from pathlib import Path

OUT = Path(__file__).resolve().parents[2] / "fixtures" / "text"
NOW = datetime.datetime(2026, 3, 7, 4, 5, 9)


def header(**versions):
    return {
        "generator": "interop/python/text_golden.py",
        "versions": {"python": platform.python_version(), **versions},
        "date": datetime.date.today().isoformat(),
    }


def write(name, value):
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / name
    # One line per case keeps the files small and their differences readable.
    members = []
    for key, member in value.items():
        if isinstance(member, list) and member and isinstance(member[0], dict):
            body = "[\n" + ",\n".join(json.dumps(item, ensure_ascii=False) for item in member) + "\n]"
        else:
            body = json.dumps(member, ensure_ascii=False)
        members.append(f"{json.dumps(key)}: {body}")
    path.write_text("{\n" + ",\n".join(members) + "\n}\n")
    print(path, path.stat().st_size)


# ---- Chat templates ---------------------------------------------------------------------------------------------------------

QWEN_TOOLS = r"""{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\n\n' }}
    {%- endif %}
    {{- "# Tools\n\nYou may call one or more functions.\n<tools>" }}
    {%- for tool in tools %}
        {{- "\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\n</tools>\n\nAnswer with <tool_call>\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call><|im_end|>\n" }}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\n<think>\n' + reasoning_content.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}
                    {{- '\n' }}
                {%- endif %}
                {%- if tool_call.function %}
                    {%- set tool_call = tool_call.function %}
                {%- endif %}
                {{- '<tool_call>\n{"name": "' }}
                {{- tool_call.name }}
                {{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}
                    {{- tool_call.arguments }}
                {%- else %}
                    {{- tool_call.arguments | tojson }}
                {%- endif %}
                {{- '}\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\n<tool_response>\n' }}
        {{- content }}
        {{- '\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}"""

LLAMA_TOOLS = r"""{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not tools_in_user_message is defined %}
    {%- set tools_in_user_message = true %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}

{#- The system message is taken out, to be put into its place below. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}

{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\n" }}
{%- endif %}
{{- "Cutting Knowledge Date: December 2023\n" }}
{{- "Today Date: " + date_string + "\n\n" }}
{%- if tools is not none and not tools_in_user_message %}
    {{- "You have access to these functions.\n\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\n\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}

{%- if tools_in_user_message and not tools is none %}
    {%- if messages | length != 0 %}
        {%- set first_user_message = messages[0]['content']|trim %}
        {%- set messages = messages[1:] %}
    {%- else %}
        {{- raise_exception("Cannot put tools in the first user message when there's no first user message!") }}
{%- endif %}
    {{- '<|start_header_id|>user<|end_header_id|>\n\n' -}}
    {{- "Given the following functions, respond with JSON.\n\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\n\n" }}
    {%- endfor %}
    {{- first_user_message + "<|eot_id|>"}}
{%- endif %}

{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}
        {{- '{"name": "' + tool_call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}" }}
        {{- "<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\n\n" }}
        {%- if message.content is mapping or message.content is iterable and message.content is not string %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"""

MISTRAL = r"""{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}

{#- Tool messages may stand between those of user and assistant. #}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or message.role == "tool_results" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("After the optional system message, conversation roles must alternate user/assistant/user/assistant/...") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}

{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}
                        {{- ", " }}
                    {%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- else %}
                    {{- "]" }}
                {%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
            {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\n\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}
            {{- out[:-1] }}
            {%- if not tool_call.id is defined or tool_call.id|length < 3 %}
                {{- raise_exception("Tool call IDs should be alphanumeric strings with length 9!") }}
            {%- endif %}
            {{- ', "id": "' + tool_call.id + '"}' }}
            {%- if not loop.last %}
                {{- ", " }}
            {%- else %}
                {{- "]" + eos_token }}
            {%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- elif message["role"] == "tool_results" or message["role"] == "tool" %}
        {%- if message.content is defined and message.content.content is defined %}
            {%- set content = message.content.content %}
        {%- else %}
            {%- set content = message.content %}
        {%- endif %}
        {{- '[TOOL_RESULTS] {"content": ' + content|string + ", " }}
        {{- '"call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
    {%- elif message["role"] == "system" %}
        {{- raise_exception("Only the first message may be a system message") }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported, with the exception of an initial optional system message!") }}
    {%- endif %}
{%- endfor %}
"""

DEEPSEEK = r"""{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% set ns = namespace(is_first=false, is_tool=false, is_output_first=true, system_prompt='', is_first_sp=true) %}{%- for message in messages %}{%- if message['role'] == 'system' %}{%- if ns.is_first_sp %}{% set ns.system_prompt = ns.system_prompt + message['content'] %}{% set ns.is_first_sp = false %}{%- else %}{% set ns.system_prompt = ns.system_prompt + '\n\n' + message['content'] %}{%- endif %}{%- endif %}{%- endfor %}{{ bos_token }}{{ ns.system_prompt }}{%- for message in messages %}{%- if message['role'] == 'user' %}{%- set ns.is_tool = false -%}{{'<｜User｜>' + message['content']}}{%- endif %}{%- if message['role'] == 'assistant' and 'tool_calls' in message %}{%- set ns.is_tool = false -%}{%- for tool in message['tool_calls'] %}{%- if not ns.is_first %}{%- if message['content'] is none %}{{'<｜Assistant｜><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' + tool['type'] + '<｜tool▁sep｜>' + tool['function']['name'] + '\n' + '```json' + '\n' + tool['function']['arguments']|tojson + '\n' + '```' + '<｜tool▁call▁end｜>'}}{%- else %}{{'<｜Assistant｜>' + message['content'] + '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' + tool['type'] + '<｜tool▁sep｜>' + tool['function']['name'] + '<｜tool▁call▁end｜>'}}{%- endif %}{%- set ns.is_first = true -%}{%- else %}{{'\n' + '<｜tool▁call▁begin｜>' + tool['type'] + '<｜tool▁sep｜>' + tool['function']['name'] + '<｜tool▁call▁end｜>'}}{%- endif %}{%- endfor %}{{'<｜tool▁calls▁end｜><｜end▁of▁sentence｜>'}}{%- endif %}{%- if message['role'] == 'assistant' and 'tool_calls' not in message %}{%- if ns.is_tool %}{{'<｜tool▁outputs▁end｜>' + message['content'] + '<｜end▁of▁sentence｜>'}}{%- set ns.is_tool = false -%}{%- else %}{% set content = message['content'] %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}{{'<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>'}}{%- endif %}{%- endif %}{%- if message['role'] == 'tool' %}{%- set ns.is_tool = true -%}{%- if ns.is_output_first %}{{'<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>' ~ message['content'] ~ '<｜tool▁output▁end｜>'}}{%- set ns.is_output_first = false %}{%- else %}{{'\n<｜tool▁output▁begin｜>' ~ message['content'] ~ '<｜tool▁output▁end｜>'}}{%- endif %}{%- endif %}{%- endfor -%}{% if ns.is_tool %}{{'<｜tool▁outputs▁end｜>'}}{% endif %}{% if add_generation_prompt and not ns.is_tool %}{{'<｜Assistant｜><think>\n'}}{% endif %}"""

GEMMA = r"""{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '

' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '

' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '
' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model
'}}
{%- endif -%}
"""

HARMONY = r"""{#-
  Macros that write types, in the manner of the gpt-oss family.
#}
{%- macro render_typescript_type(param_spec, required_params, is_nullable=false) -%}
    {%- if param_spec.type == "array" -%}
        {%- if param_spec['items'] -%}
            {%- if param_spec['items']['type'] == "string" -%}
                {{- "string[]" }}
            {%- elif param_spec['items']['type'] == "number" or param_spec['items']['type'] == "integer" -%}
                {{- "number[]" }}
            {%- else -%}
                {%- set inner_type = render_typescript_type(param_spec['items'], required_params) -%}
                {%- if inner_type == "object | object" or inner_type|length > 50 -%}
                    {{- "any[]" }}
                {%- else -%}
                    {{- inner_type + "[]" }}
                {%- endif -%}
            {%- endif -%}
            {%- if param_spec.nullable -%}
                {{- " | null" }}
            {%- endif -%}
        {%- else -%}
            {{- "any[]" }}
        {%- endif -%}
    {%- elif param_spec.type is defined and param_spec.type is iterable and param_spec.type is not string and param_spec.type is not mapping and param_spec.type[0] is defined -%}
        {%- if param_spec.type | length > 1 -%}
            {{- param_spec.type | join(" | ") }}
        {%- else -%}
            {{- param_spec.type[0] }}
        {%- endif -%}
    {%- elif param_spec.oneOf -%}
        {%- for variant in param_spec.oneOf -%}
            {{- render_typescript_type(variant, required_params) -}}
            {%- if variant.description %}
                {{- "// " + variant.description }}
            {%- endif -%}
            {%- if variant.default is defined %}
                {{ "// default: " + variant.default|tojson }}
            {%- endif -%}
            {%- if not loop.last %}
                {{- " | " }}
            {% endif -%}
        {%- endfor -%}
    {%- elif param_spec.type == "string" -%}
        {%- if param_spec.enum -%}
            {{- '"' + param_spec.enum|join('" | "') + '"' -}}
        {%- else -%}
            {{- "string" }}
            {%- if param_spec.nullable %}
                {{- " | null" }}
            {%- endif -%}
        {%- endif -%}
    {%- elif param_spec.type == "number" or param_spec.type == "integer" -%}
        {{- "number" }}
    {%- elif param_spec.type == "boolean" -%}
        {{- "boolean" }}
    {%- elif param_spec.type == "object" -%}
        {%- if param_spec.properties -%}
            {{- "{\n" }}
            {%- for prop_name, prop_spec in param_spec.properties.items() -%}
                {{- prop_name -}}
                {%- if prop_name not in (param_spec.required or []) -%}
                    {{- "?" }}
                {%- endif -%}
                {{- ": " }}
                {{ render_typescript_type(prop_spec, param_spec.required or []) }}
                {%- if not loop.last -%}
                    {{-", " }}
                {%- endif -%}
            {%- endfor -%}
            {{- "}" }}
        {%- else -%}
            {{- "object" }}
        {%- endif -%}
    {%- else -%}
        {{- "any" }}
    {%- endif -%}
{%- endmacro -%}

{%- macro render_tool_namespace(namespace_name, tools) -%}
    {{- "## " + namespace_name + "\n\n" }}
    {{- "namespace " + namespace_name + " {\n\n" }}
    {%- for tool in tools %}
        {%- set tool = tool.function %}
        {{- "// " + tool.description + "\n" }}
        {{- "type "+ tool.name + " = " }}
        {%- if tool.parameters and tool.parameters.properties %}
            {{- "(_: {\n" }}
            {%- for param_name, param_spec in tool.parameters.properties.items() %}
                {%- if param_spec.description %}
                    {{- "// " + param_spec.description + "\n" }}
                {%- endif %}
                {{- param_name }}
                {%- if param_name not in (tool.parameters.required or []) -%}
                    {{- "?" }}
                {%- endif -%}
                {{- ": " }}
                {{- render_typescript_type(param_spec, tool.parameters.required or []) }}
                {%- if param_spec.default is defined -%}
                    {%- if param_spec.enum %}
                        {{- ", // default: " + param_spec.default }}
                    {%- elif param_spec.oneOf %}
                        {{- "// default: " + param_spec.default }}
                    {%- else %}
                        {{- ", // default: " + param_spec.default|tojson }}
                    {%- endif -%}
                {%- endif -%}
                {%- if not loop.last %}
                    {{- ",\n" }}
                {%- else %}
                    {{- ",\n" }}
                {%- endif -%}
            {%- endfor %}
            {{- "}) => any;\n\n" }}
        {%- else -%}
            {{- "() => any;\n\n" }}
        {%- endif -%}
    {%- endfor %}
    {{- "} // namespace " + namespace_name }}
{%- endmacro -%}

{%- macro build_system_message() -%}
    {%- if model_identity is not defined %}
        {%- set model_identity = "You are a router's test model." %}
    {%- endif %}
    {{- model_identity + "\n" }}
    {{- "Current date: " + strftime_now("%Y-%m-%d") + "\n\n" }}
    {%- if reasoning_effort is not defined %}
        {%- set reasoning_effort = "medium" %}
    {%- endif %}
    {{- "Reasoning: " + reasoning_effort + "\n\n" }}
    {%- if builtin_tools %}
        {{- "# Tools\n\n" }}
        {%- set available_builtin_tools = namespace(browser=false, python=false) %}
        {%- for tool in builtin_tools %}
            {%- if tool == "browser" %}
                {%- set available_builtin_tools.browser = true %}
            {%- elif tool == "python" %}
                {%- set available_builtin_tools.python = true %}
            {%- endif %}
        {%- endfor %}
        {{- available_builtin_tools.browser ~ '/' ~ available_builtin_tools.python + "\n" }}
    {%- endif -%}
    {{- "# Valid channels: analysis, commentary, final." }}
{%- endmacro -%}

{{- "<|start|>system<|message|>" }}
{{- build_system_message() }}
{{- "<|end|>" }}

{%- if messages[0].role == "developer" or messages[0].role == "system" %}
    {%- set developer_message = messages[0].content %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set developer_message = "" %}
    {%- set loop_messages = messages %}
{%- endif %}

{%- if developer_message or tools %}
    {{- "<|start|>developer<|message|>" }}
    {%- if developer_message %}
        {{- "# Instructions\n\n" }}
        {{- developer_message }}
        {{- "\n\n" }}
    {%- endif %}
    {%- if tools -%}
        {{- "# Tools\n\n" }}
        {{- render_tool_namespace("functions", tools) }}
    {%- endif -%}
    {{- "<|end|>" }}
{%- endif %}

{%- set last_tool_call = namespace(name=none) %}
{%- for message in loop_messages -%}
    {%- if message.role == 'assistant' -%}
        {%- if "content" in message and message.content %}
            {%- if "<|channel|>analysis<|message|>" in message.content or "<|channel|>final<|message|>" in message.content %}
                {{- raise_exception("You have passed a message containing <|channel|> tags in the content field.") }}
            {%- endif %}
        {%- endif %}
        {%- if "tool_calls" in message and message.tool_calls %}
            {%- set future_final_message = namespace(found=false) %}
            {%- for future_message in loop_messages[loop.index:] %}
                {%- if future_message.role == 'assistant' and "tool_calls" not in future_message %}
                    {%- set future_final_message.found = true %}
                {%- endif %}
            {%- endfor %}
            {%- set tool_call = message.tool_calls[0] %}
            {%- if tool_call.function %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {%- if message.content and not future_final_message.found %}
                {{- "<|start|>assistant<|channel|>analysis<|message|>" + message.content + "<|end|>" }}
            {%- endif %}
            {{- "<|start|>assistant to=" }}
            {{- "functions." + tool_call.name + "<|channel|>commentary " }}
            {{- (tool_call.content_type if tool_call.content_type is defined else "json") + "<|message|>" }}
            {{- tool_call.arguments|tojson }}
            {{- "<|call|>" }}
            {%- set last_tool_call.name = tool_call.name %}
        {%- elif loop.last and not add_generation_prompt %}
            {%- if "thinking" in message %}
                {{- "<|start|>assistant<|channel|>analysis<|message|>" + message.thinking + "<|end|>" }}
            {%- endif %}
            {{- "<|start|>assistant<|channel|>final<|message|>" + message.content + "<|return|>" }}
        {%- else %}
            {{- "<|start|>assistant<|channel|>final<|message|>" + message.content + "<|end|>" }}
            {%- set last_tool_call.name = none %}
        {%- endif %}
    {%- elif message.role == 'tool' -%}
        {%- if last_tool_call.name is none %}
            {{- raise_exception("Message has tool role, but there was no previous assistant message with a tool call!") }}
        {%- endif %}
        {{- "<|start|>functions." + last_tool_call.name }}
        {{- " to=assistant<|channel|>commentary<|message|>" + message.content|tojson + "<|end|>" }}
    {%- elif message.role == 'user' -%}
        {{- "<|start|>user<|message|>" + message.content + "<|end|>" }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|start|>assistant
{%- endif -%}"""

VISION = r"""{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system
You are a helpful assistant.<|im_end|>
{% endif %}<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}<|im_end|>
{% else %}{% for content in message['content'] %}{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}{% set image_count.value = image_count.value + 1 %}{% if add_vision_id %}Picture {{ image_count.value }}: {% endif %}<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>
{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

ZEPHYR = """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}
"""

GRANITE = r"""{%- macro document_block(documents) -%}
    {%- for document in documents or [] %}
        {{- '<|start_of_role|>document {"document_id": "' + document['doc_id'] | string + '"}<|end_of_role|>\n' }}
        {{- document['text'] }}{{- '<|end_of_text|>\n' }}
    {%- endfor %}
{%- endmacro -%}
{%- set roles = messages | map(attribute='role') | list %}
{%- set counts = dict(system=roles.count('system'), user=roles | select('eq', 'user') | list | length) %}
{{- "roles: " ~ roles | join(', ') ~ ' / ' ~ roles | unique | sort | join('|') ~ ' ' ~ counts }}
{{ document_block(documents) }}
{%- for message in messages -%}
    {%- if message.role == 'skip' %}{% continue %}{% endif -%}
    {%- if message.role == 'stop' %}{% break %}{% endif -%}
    {% generation %}
    {{- '\n[' ~ loop.index ~ '/' ~ loop.length ~ ' ' ~ (loop.previtem.role if loop.previtem is defined else '-') ~ '>' ~ (loop.nextitem.role if loop.nextitem is defined else '-') ~ '] ' }}
    {%- set text = message.content if message.content is string else message.content | map(attribute='text', default='?') | join(' + ') if message.content else '' %}
    {{- (message.name | default(message.role, true) | capitalize) + ': ' + text | replace('\n', ' ') | truncate(40, true, '…') }}
    {% endgeneration %}
{%- endfor %}
{{ '{:<6}|{:>4}'.format('ab', 7) }} {{ '%s=%05.1f' % ('x', 2.25) }} {{ loop is defined }}
{%- call(label) wrapped('x') %}<{{ label }}>{% endcall %}
{% if add_generation_prompt %}{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}
"""
GRANITE = GRANITE.replace("{%- set roles", "{%- macro wrapped(tag) -%}[{{ tag }}{{ caller(tag * 2) }}]{%- endmacro -%}\n{%- set roles", 1)

TEMPLATES = {
    "chatml-tools": QWEN_TOOLS,
    "llama-tools": LLAMA_TOOLS,
    "mistral-tools": MISTRAL,
    "deepseek": DEEPSEEK,
    "gemma": GEMMA,
    "harmony": HARMONY,
    "vision": VISION,
    "zephyr": ZEPHYR,
    "granite": GRANITE,
}

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather at a place; <b>'quoted'</b> & \"escaped\" é 天気",
        "parameters": {
            "type": "object",
            "properties": {
                "location": {"type": "string", "description": "City"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
                "days": {"type": "array", "items": {"type": "integer"}, "minimum": 1.0, "maximum": 1e21, "step": 1e-7},
                "options": {"type": "object", "properties": {"hourly": {"type": "boolean"}}, "required": []},
                "kind": {"type": ["string", "null"]},
            },
            "required": ["location"],
        },
    },
}
NO_ARGS = {"type": "function", "function": {"name": "now", "description": "The time", "parameters": {"type": "object", "properties": {}}}}


def call(name, arguments, ident="call00001"):
    return {"id": ident, "type": "function", "function": {"name": name, "arguments": arguments}}


CONVERSATIONS = {
    "user": [{"role": "user", "content": "Hello"}],
    "system-user": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " Hello \n"}],
    "turns": [
        {"role": "system", "content": "You are <kind>."},
        {"role": "user", "content": "One"},
        {"role": "assistant", "content": "  Two  "},
        {"role": "user", "content": "Three\nlines\n\n"},
    ],
    "answered": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}],
    "thinking": [
        {"role": "user", "content": "Q"},
        {"role": "assistant", "content": "<think>\nhm\n\n</think>\n\nA"},
        {"role": "user", "content": "R"},
        {"role": "assistant", "content": "B", "reasoning_content": "\nso\n", "thinking": "so"},
    ],
    "unicode": [{"role": "user", "content": "naïve 👩‍👩‍👧 世界 \u202e\u00a0 ß İ ﬁ \u0000\u001f\u007f \u2028 'q' \"d\" \\ <|im_end|>"}],
    "empty": [{"role": "user", "content": ""}],
    "tool-call": [
        {"role": "user", "content": "Weather in Köln?"},
        {"role": "assistant", "content": None, "tool_calls": [call("get_weather", {"location": "Köln", "days": [1, 2], "x": None, "y": True, "f": 2.0})]},
        {"role": "tool", "content": "{\"t\": 21.5}", "tool_call_id": "call00001", "name": "get_weather"},
        {"role": "assistant", "content": "21.5 °C"},
        {"role": "user", "content": "Thanks"},
    ],
    "tool-pending": [
        {"role": "user", "content": "Two calls"},
        {"role": "assistant", "content": "Calling", "tool_calls": [call("get_weather", {"location": "a"}), call("now", {}, "call00002")]},
        {"role": "tool", "content": "r1", "tool_call_id": "call00001"},
        {"role": "tool", "content": "r2", "tool_call_id": "call00002"},
    ],
    "tool-string-arguments": [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "", "tool_calls": [call("now", "{\"a\": 1}")]},
        {"role": "tool", "content": "12:00", "tool_call_id": "call00001"},
    ],
    "parts": [
        {"role": "user", "content": [{"type": "text", "text": " a "}, {"type": "image"}, {"type": "text", "text": "b"}]},
    ],
    "text-parts": [{"role": "system", "content": [{"type": "text", "text": "S"}]}, {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}],
    "wrong-order": [{"role": "assistant", "content": "first"}, {"role": "user", "content": "second"}],
    "two-users": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
    "names": [
        {"role": "user", "content": "long " * 12, "name": "ann"},
        {"role": "skip", "content": "no"},
        {"role": "assistant", "content": "ok", "name": ""},
        {"role": "stop", "content": "no"},
        {"role": "user", "content": "never"},
    ],
    "odd-fields": [{"role": "user", "content": "x", "extra": {"items": [1, 2.5, None], "keys": {"b": False}}, "n": 12345678901234567890}],
}

SETTINGS = [
    {"add_generation_prompt": True},
    {"add_generation_prompt": False},
    {"add_generation_prompt": True, "tools": [WEATHER, NO_ARGS]},
    {"add_generation_prompt": True, "tools": [WEATHER], "enable_thinking": False, "tools_in_user_message": False, "date_string": "1 Jan 2030", "add_vision_id": True,
     "reasoning_effort": "high", "builtin_tools": ["python"], "model_identity": "Me.", "documents": [{"doc_id": 7, "text": "d"}]},
]

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


def environment():
    from transformers.utils.chat_template_utils import _compile_jinja_template

    env = _compile_jinja_template("x").environment
    # As Dynamo dresses it.
    env.filters["length"] = lambda value: 0 if value is None else len(value)
    env.filters["fromjson"] = json.loads
    env.globals["strftime_now"] = NOW.strftime
    return env


def outcome(render):
    import jinja2

    try:
        return {"output": render()}
    except jinja2.exceptions.TemplateSyntaxError as error:
        return {"syntax_error": str(error)}
    except jinja2.exceptions.TemplateError as error:
        raised = type(error) is jinja2.exceptions.TemplateError
        return {"raised": str(error)} if raised else {"error": f"{type(error).__name__}: {error}"}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def template_cases(env):
    cases = []
    for name, source in TEMPLATES.items():
        template = env.from_string(source)
        for conversation, messages in CONVERSATIONS.items():
            for index, setting in enumerate(SETTINGS):
                variables = {**SPECIAL, "messages": messages, "tools": None, "documents": None, **setting}
                case = {"template": name, "conversation": conversation, "setting": index}
                cases.append({**case, **outcome(lambda: template.render(**variables))})
    return cases


def continuations():
    from transformers.utils.chat_template_utils import render_jinja_template

    cases = []
    for name in ("chatml-tools", "llama-tools", "mistral-tools", "gemma", "vision", "zephyr"):
        for tail in ("The answer is", "  spaced out  ", "line\n", "<think>", "é👩‍👩‍👧"):
            messages = [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": tail}]
            result = outcome(lambda: render_jinja_template([messages], chat_template=TEMPLATES[name], continue_final_message=True, date_string="1 Jan 2030", **SPECIAL)[0][0])
            cases.append({"template": name, "messages": messages, **result})
    return cases


# Small templates, one construct each. V is given to all of them.
V = {
    "s": "Hello, wörld", "e": "", "n": 7, "z": 0, "neg": -3, "f": 2.5, "one": 1.0, "big": 12345678901234567890, "t": True, "no": None,
    "l": [3, 1, 2], "ls": ["b", "A", "c", "a"], "d": {"b": 1, "a": [1, {"x": None}], "C": "z", "items": "own"}, "el": [], "ed": {},
    "msgs": [{"role": "user", "content": "hi", "n": 2}, {"role": "tool", "content": None, "n": 1}, {"role": "user", "content": "yo", "n": 2}],
    "nl": "\n\n a\nb \n", "emoji": "a👩‍👩‍👧b😀", "q": "it's \"q\" \\ \t\x7f\u200b é", "html": "<a href='x'>&</a>", "nested": [[1, [2.0, "x"]], {"k": [True, None]}],
    "fl": [0.1, 1e16, 1e15, 123456789.125, 1e-5, 0.0001, 1e22, -0.0, 3.0, 1.5e300],
}

PROBES = r"""
{{ t }} {{ no }} {{ f }} {{ one }} {{ big }} {{ l }} {{ d }} {{ ls }} {{ nested }}
{{ fl }} {{ fl | tojson }}
{{ [t, no, 'a', "it's", 'say "x"', q, emoji, nl] }}
{{ (1, 2) }} {{ (1, 'a', none) }} {{ {'a': 1, 2: (3, 4)} }} {{ {1: 'x', true: 'y'} }}
{{ s | tojson }} {{ d | tojson }} {{ one | tojson }} {{ html | tojson }} {{ q | tojson }} {{ emoji | tojson }}
{{ d | tojson(indent=2) }} {{ el | tojson(indent=2) }} {{ ed | tojson(indent=2) }} {{ nested | tojson(indent=1) }}
{{ d | tojson(sort_keys=true) }} {{ d | tojson(separators=(',', ':')) }} {{ emoji | tojson(ensure_ascii=true) }} {{ q | tojson(true) }}
{{ d | tojson(indent=4, ensure_ascii=False, separators=(', ', ' : ')) }} {{ l | tojson(indent='--') }} {{ l | tojson(indent=0) }}
{{ (1, 2) | tojson }} {{ {1: 2, none: 3, true: 4, 1.5: 5} | tojson }}
{{ missing | tojson }}
{{ l | map('string') | tojson }}
{{ '{"a": [1, 1.0, "x"], "b": null}' | fromjson }} {{ ('[1, 2]' | fromjson)[1] }}
{{ '\n\nab\n'.lstrip('\n') }}|{{ 'xxabxx'.strip('x') }}|{{ '<<a>>'.rstrip('>') }}|{{ ' \t a '.strip() }}|{{ 'abc'.strip('') }}|{{ 'éaé'.strip('é') }}
{{ 'a,b,,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a b c'.split(None, 1) }} {{ 'a,b,c'.split(',', 1) }} {{ 'a,b,c'.rsplit(',', 1) }} {{ ' a b  c '.rsplit(None, 1) }} {{ ''.split() }} {{ ''.split(',') }} {{ 'a  b'.split(' ', maxsplit=1) }}
{{ 'a\nb\r\nc\n'.splitlines() }} {{ 'a\nb'.splitlines(true) }} {{ 'ab'.partition('b') }} {{ 'a.b.c'.rpartition('.') }}
{{ 'aXbX'.replace('X', '-') }} {{ 'aXbX'.replace('X', '-', 1) }} {{ 'abc'.replace('', '.') }} {{ 'aXbX' | replace('X', '-', 1) }} {{ 5 | replace(5, 'six') }}
{{ 'abc'.startswith('ab') }} {{ 'abc'.startswith(('x', 'a')) }} {{ 'abc'.endswith('bc') }} {{ 'abc'.startswith('b', 1) }} {{ 'abc'.endswith('b', 0, 2) }} {{ 'abc'.startswith('') }}
{{ 'banana'.find('an') }} {{ 'banana'.rfind('an') }} {{ 'banana'.find('x') }} {{ 'banana'.index('n') }} {{ 'banana'.count('an') }} {{ 'banana'.count('') }} {{ emoji.find('b') }} {{ 'banana'.find('a', 2) }} {{ 'banana'.count('a', 1, 4) }}
{{ 'banana'.index('x') }}
{{ 'hELLO wORLD'.capitalize() }} {{ 'hELLO wORLD' | capitalize }} {{ "they're bill's".title() }} {{ "they're bill-s (x)" | title }} {{ 'ß'.upper() }} {{ 'İ'.lower() }} {{ s | upper }} {{ s | lower }} {{ 'ab' | title }}
{{ 'ab'.center(7, '*') }} {{ 'ab'.ljust(4) }}| {{ 'ab'.rjust(4, '.') }} {{ 'abc' | center(8) }}| {{ 'abc'.center(6) }}| {{ '-7'.zfill(4) }} {{ '7'.zfill(3) }}
{{ '12'.isdigit() }} {{ ''.isdigit() }} {{ 'a1'.isalpha() }} {{ 'ab'.isalpha() }} {{ ' '.isspace() }} {{ 'AB'.isupper() }} {{ 'ab1'.islower() }} {{ '²'.isdigit() }} {{ 'é'.isascii() }} {{ '12'.isdecimal() }}
{{ 'prefix-x'.removeprefix('prefix-') }} {{ 'x.py'.removesuffix('.py') }} {{ ', '.join(['a', 'b']) }} {{ ''.join(ls) }} {{ '-'.join('abc') }}
{{ '-'.join([1]) }}
{{ '{} and {}'.format(1, 'b') }} {{ '{1}{0}'.format('a', 'b') }} {{ '{x:>5}|{y:<5}|{z:^5}|'.format(x='a', y='b', z='c') }} {{ '{:03d}'.format(7) }} {{ '{:.2f}'.format(2.005) }} {{ '{{}}'.format() }} {{ '{!r}'.format('a') }} {{ '{:*^9}'.format('mid') }}
{{ '%s %d %5.2f|%-5s|%05d' | format('a', 3, 2.5, 'x', 42) }} {{ '%s' % 'a' }} {{ '%s-%s' % ('a', 1) }} {{ '%r' % 'a' }} {{ '%x' % 255 }} {{ '%%' % () }} {{ '%(a)s' % {'a': 1} }} {{ '%s' % [1] }} {{ '%.3s|' % 'abcdef' }} {{ '%+d' % 5 }} {{ '%e' % 12345.678 }}
{{ '%s %s' % 'a' }}
{{ '%d' % 'a' }}
{{ s[0] }} {{ s[-1] }} {{ s[1:4] }} {{ s[::-1] }} {{ s[:-3] }} {{ emoji[1] }} {{ emoji[-2:] }} {{ emoji | length }} {{ l[0:2] }} {{ l[::-1] }} {{ l[5:] }} {{ l[-1] }} {{ l[::2] }} {{ l[:2:1] }} {{ (1,2,3)[1:] }}
{{ l[10] }}|{{ l[10] is defined }} {{ d['zzz'] is defined }} {{ d.zzz }}| {{ d.b }} {{ d['a'][1].x }} {{ msgs[0].role }} {{ msgs.0.role }}
{{ d.items() | list }} {{ d.keys() | list }} {{ d.values() | list }} {{ d['items'] }} {{ d.keys() }} {{ d.get('b') }} {{ d.get('x') }} {{ d.get('x', 'dflt') }} {{ d | items | list }} {{ d.items() | length }}
{{ missing.attr }}
{{ missing['k'] }}
{{ missing }}|{{ missing | default('d') }} {{ e | default('d') }} {{ e | default('d', true) }} {{ no | default('d') }} {{ no | d('x', boolean=true) }} {{ missing | length }} {{ no | length }} {{ missing | join(',') }} {{ missing | upper }} {{ missing is undefined }} {{ missing == missing2 }} {{ 'x' in missing }} {{ missing ~ 'x' }} {{ not missing }} {{ missing | list }}
{{ missing + 'x' }}
{{ missing > 1 }}
{% for x in missing %}x{% else %}none{% endfor %}
{% for x in no %}x{% endfor %}
{{ 1 + 2 }} {{ 7 / 2 }} {{ 6 / 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 2.5 * 2 }} {{ 1 - 1.0 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ 10 ** 20 }} {{ big + 1 }} {{ big * big }} {{ -n }} {{ +n }} {{ - 3 + 5 }} {{ n -1 }} {{ n - -1 }} {{ true + 1 }}
{{ 1e3 }} {{ 1.5e-7 }} {{ 1E5 }} {{ 1_000 }} {{ 0x1f }} {{ 0b101 }} {{ 0o17 }} {{ 123456789012345678901 }} {{ 1e20 }} {{ 0.1 + 0.2 }} {{ 1.0 }} {{ 100.0 }} {{ 1_0.2_5 }}
{{ 1 / 0 }}
{{ 'a' + 1 }}
{{ 'a' * 3 }} {{ 3 * 'ab' }} {{ [1] * 2 }} {{ 'a' * 0 }} {{ [1] + [2] }} {{ (1,) | length }}
{{ [1] + [2] }} {{ (1, 2) + (3, 4) }} {{ 'a' ~ 1 ~ 2.0 ~ none ~ true ~ [1] }} {{ 'x' ~ 'y' | upper }} {{ 'a' + 'b' ~ 'c' + 'd' }} {{ 'n: ' ~ 1 + 2 ~ '' }}
{{ 'a' + 'b' ~ 1 }} {{ 'a' ~ 2 * 3 }} {{ ('a' ~ 'b') | upper }} {{ 'v' ~ 1 == 'v1' }} {{ n ~ -1 }} {{ [1 ~ 2, 3 ~ 4] }} {{ {'k' ~ 1: 'v' ~ 2} }} {{ 'a' ~ 'b' if t else 'c' ~ 'd' }} {{ 'a' ~ (1 + 2) ~ 'b' }} {{ s.replace('l' ~ 'l', 'L' ~ 'L') }}
{{ 1 == 1.0 }} {{ 1 == true }} {{ '1' == 1 }} {{ [1, 2] == [1, 2] }} {{ [1] == (1,) | list }} {{ {'a': 1} == {'a': 1.0} }} {{ none == false }} {{ 'a' < 'b' }} {{ 'Z' < 'a' }} {{ [1, 2] < [1, 3] }} {{ 2 >= 2.0 }} {{ d == d }} {{ msgs[0] == msgs[2] }} {{ msgs[0] != msgs[1] }}
{{ 1 < 'a' }}
{{ 'a' in 'abc' }} {{ 'a' not in 'abc' }} {{ 1 in l }} {{ 1.0 in l }} {{ 'b' in d }} {{ [1] in [[1]] }} {{ none in [none] }} {{ 'x' in ['X'] }} {{ 'role' in msgs[0] }} {{ '' in 'a' }}
{{ 1 in 'abc' }}
{{ 1 in 5 }}
{{ t and 'x' }} {{ e or 'y' }} {{ not e }} {{ t and not no }} {{ z or e or 'last' }} {{ l and d }} {{ not l == [] }} {{ not 1 in l }} {{ e and missing.x }}
{{ 'a' if t }} {{ 'a' if no }}| {{ 'a' if no else 'b' if z else 'c' }} {{ ('a' if t else 'b') ~ 'x' }} {{ 1 if l else 2 }}
{{ (1 == 1) == true }} {{ (n > 3) != (z > 3) }} {{ ('user' == 'user') != (3 % 2 == 0) }} {{ (1 < 2) in [true] }}
{{ n is odd }} {{ n is even }} {{ n is divisibleby(7) }} {{ n is divisibleby 3 }} {{ n is number }} {{ f is float }} {{ one is integer }} {{ t is number }} {{ t is boolean }} {{ t is true }} {{ no is false }} {{ s is string }} {{ d is mapping }} {{ l is sequence }} {{ d is sequence }} {{ s is iterable }} {{ n is iterable }} {{ no is none }} {{ no is not none }} {{ missing is defined }} {{ s is sequence }} {{ missing is iterable }} {{ range is callable }} {{ 1 is integer }} {{ true is integer }} {{ 2.0 is float }}
{{ n is in l }} {{ 1 is in [1, 2] }} {{ 1 is not in [1, 2] }} {{ n is eq 7 }} {{ n is ne(7) }} {{ n is gt 3 }} {{ n is lessthan 3 }} {{ n is ge 7 and n is le 7 }} {{ 'a' is in 'abc' }} {{ 'AB' is upper }} {{ 'ab1' is lower }} {{ none is sameas none }} {{ n is equalto n }} {{ n is divisibleby n }} {{ n is divisibleby l[0] }} {{ 'x' is in d.C ~ 'x' }} {{ not n is odd }} {{ n is odd or e }} {{ [n is odd, n is gt 1] }}
{{ l | sort }} {{ ls | sort }} {{ ls | sort(case_sensitive=true) }} {{ l | sort(reverse=true) }} {{ msgs | sort(attribute='n') | map(attribute='content') | list }} {{ ls | sort | join }} {{ l | sum }} {{ msgs | sum(attribute='n') }} {{ l | min }} {{ l | max }} {{ ls | max }} {{ el | max }}| {{ msgs | sort(attribute='role,n') | map(attribute='n') | list }}
{{ l | first }} {{ l | last }} {{ el | first }}| {{ s | first }} {{ d | first }} {{ s | last }} {{ l | reverse | list }} {{ 'abc' | reverse }} {{ ls | unique | list }} {{ l | length }} {{ d | length }} {{ d | count }} {{ l | list }} {{ 'ab' | list }} {{ d | list }}
{{ ls | join(', ') }} {{ l | join('-') }} {{ msgs | join(',', attribute='role') }} {{ 'abc' | join('.') }} {{ [none, true, 1.0] | join(' ') }} {{ d | join }} {{ nested | join(';') }}
{{ msgs | map(attribute='role') | list }} {{ ls | map('upper') | list }} {{ ls | map('replace', 'a', 'x') | list }} {{ msgs | map(attribute='zz', default='-') | list }} {{ msgs | map(attribute='content') | select | list }} {{ nested | map('string') | join('/') }} {{ ls | map('default', 'x') | list }} {{ msgs | map('attr', 'get') | list | length }}
{{ l | select('odd') | list }} {{ l | reject('odd') | list }} {{ l | select('gt', 1) | list }} {{ msgs | selectattr('role', 'equalto', 'user') | list | length }} {{ msgs | selectattr('content') | map(attribute='content') | list }} {{ msgs | rejectattr('role', 'eq', 'user') | first }} {{ msgs | selectattr('role', 'in', ['tool', 'x']) | list }} {{ msgs | selectattr('zz', 'defined') | list }} {{ (msgs | rejectattr('content', 'none') | list)[-1].content }}
{{ msgs | groupby('role') | map('first') | list }} {% for role, items in msgs | groupby('role') %}{{ role }}:{{ items | length }} {% endfor %} {% for g in msgs | groupby('n') %}{{ g[0] }}={{ g[1] | map(attribute='role') | join(',') }};{% endfor %}
{{ d | dictsort }} {{ {'b': 2, 'a': 3} | dictsort(by='value') }} {{ {'b': 2, 'A': 3} | dictsort(true) }} {{ {'b': 2, 'a': 3} | dictsort(reverse=true) }}
{{ [1,2,3,4,5] | batch(2) | list }} {{ [1,2,3] | batch(2, 'x') | list }} {{ [1,2,3,4,5] | slice(3) | list }} {{ [1,2,3,4] | slice(3, 'x') | list }}
{{ 2.5 | round }} {{ 3.5 | round }} {{ 2.675 | round(2) }} {{ 0.125 | round(2) }} {{ 7 | round }} {{ 2.1 | round(method='ceil') }} {{ 2.19 | round(1, 'floor') }} {{ 2.5 | int }} {{ '42' | int }} {{ 'x' | int }} {{ 'x' | int(5) }} {{ '3.7' | int }} {{ ' 8 ' | int }} {{ '0x1A' | int(0, 16) }} {{ '1.5' | float }} {{ 'x' | float }} {{ 3 | float }} {{ -3 | abs }} {{ -2.5 | abs }} {{ no | int }} {{ '1_000' | int }} {{ true | int }} {{ 1e3 | int }}
{{ 'a\nb\n\nc' | indent }}|{{ 'a\nb' | indent(2, true) }}|{{ 'a\n\nb' | indent(2, blank=true) }}|{{ 'a\nb\n' | indent('>> ') }}|{{ nl | indent(width=1, first=true) }}|{{ '' | indent }}
{{ '  x ' | trim }}|{{ 'xxaxx' | trim('x') }}|{{ 5 | trim }}|{{ 'abc def ghi jkl mno' | truncate(9) }}|{{ 'abc def ghi jkl' | truncate(9, true) }}|{{ 'abc def ghi' | truncate(9) }}|{{ 'abcdefghijklmnop' | truncate(6, false, '..', 0) }}|{{ 'one two  three' | wordcount }}|{{ 5 | string }}|{{ html | safe }}
{% set x = 1 %}{% for i in [1, 2] %}{{ x }}{% set x = x + i %}{{ x }} {% endfor %}{{ x }}
{% set ns = namespace(x=1, y='a') %}{% for i in [1, 2] %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }} {{ ns.y }} {{ ns.z }}| {{ ns.z is defined }} {{ ns['x'] }} {{ ns }}
{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns.b }} {% set ns.c %}block {{ ns.a }}{% endset %}{{ ns.c }}
{% set ns = namespace(a=1) %}{% set d.b = 2 %}
{% set ns = namespace() %}{% set ns._x = 2 %}
{% if t %}{% set y = 'in' %}{% endif %}{{ y }} {% if no %}{% set w = 1 %}{% endif %}{{ w }}| {% set a, b = 1, 2 %}{{ a }}{{ b }} {% set a, b = [3, 4] %}{{ a + b }} {% set (c, dd) = (5, 6) %}{{ dd }}
{% set a, b = [1] %}
{% set body %}x {{ n }}{% set inner = 1 %} y{% endset %}[{{ body }}]{{ inner }}| {% set up | upper %}abc{% endset %}{{ up }} {% set both | upper | replace('A', 'z') %}aba{% endset %}{{ both }}
{% for k, v in d.items() %}{{ loop.index }}{{ k }}={{ v }}{{ ', ' if not loop.last }}{% endfor %} {% for k in d %}{{ k }}{% endfor %} {% for c in 'ab👩' %}<{{ c }}>{% endfor %} {% for a, b in [[1, 2], (3, 4)] %}{{ a }}-{{ b }} {% endfor %}
{% for i in l if i > 1 %}{{ loop.index }}:{{ i }}/{{ loop.length }} {% else %}no{% endfor %} {% for i in l if i > 5 %}x{% else %}none{% endfor %} {% for i in (l if t else el) %}{{ i }}{% endfor %} {% for i in (l if t) %}{{ i }}{% endfor %} {% for i in l | reverse %}{{ i }}{% endfor %}
{% for i in range(3) %}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.depth }}{{ loop.cycle('o', 'e') }}{{ loop.previtem }}|{{ loop.nextitem }};{% endfor %} {{ range(2, 10, 3) | list }} {{ range(3) }} {{ range(5, 0, -2) | list }} {{ range(3) | length }}
{% for i in [1, 1, 2] %}{{ loop.changed(i) }} {% endfor %}{% for i in [1, 2] %}{% for j in [1] %}{{ loop.depth }}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}
{% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %} {% for i in [1, 2] %}{% for j in [1, 2, 3] %}{% if j == 2 %}{% break %}{% endif %}{{ i }}{{ j }} {% endfor %}{% endfor %}
{% macro m(a, b=2, c='x') %}{{ a }}-{{ b }}-{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, c='y') }} {{ m(1, 3) }} {{ m() }} {{ m(b=5, a=4) }} {{ m(1) | upper }} {{ m(1) ~ 'z' }} {{ m(1) is string }} {{ m(*[7, 8]) }} {{ m(**{'a': 9}) }} {{ m(1, *[2], c=3) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, b=2) }}
{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }} {% macro o(a) %}{{ a }}{{ varargs | join }}{% endmacro %}{{ o(1, 2, 3) }}
{% macro m() %}[{{ caller() }}]{% endmacro %}{% call m() %}body {{ n }}{% endcall %} {% macro p(x) %}({{ caller(x, 'k') }}){% endmacro %}{% call(a, b='z') p(3) %}{{ a }}{{ b }}{% endcall %} {% macro opt() %}{{ 'with' if caller else 'without' }}{% endmacro %}{{ opt() }}{% call opt() %}{% endcall %}
{% set outer = 'o' %}{% macro m(p) %}{{ outer }}{{ p }}{% set outer = 'i' %}{{ outer }}{% endmacro %}{{ m(1) }}{{ outer }} {% set outer = 'later' %}{{ m(2) }} {% for q in [1] %}{{ m(q) }}{% endfor %}
{% macro leak() %}{{ i }}{{ loop }}{% endmacro %}{% for i in [1, 2] %}{{ leak() }}{% endfor %}|
{% macro fact(k) %}{{ k * (fact(k - 1) | int) if k > 1 else 1 }}{% endmacro %}{{ fact(5) }}
{% macro a(x) %}{{ b(x) }}{% endmacro %}{% macro b(x) %}<{{ x }}>{% endmacro %}{{ a('k') }}
{% filter upper %}abc {{ s }}{% endfilter %} {% filter replace('a', 'b') %} aaa {% endfilter %}
{% filter indent(2) %}a
b{% endfilter %}
{% generation %}marked {{ n }}{% set gen = 1 %}{% endgeneration %} {{ gen }}| {%- generation -%} tight {%- endgeneration -%} end
{{ strftime_now('%d %b %Y') }} {{ strftime_now('%Y-%m-%d %H:%M:%S %p %I %A %a %B %j %y %-d %e %%') }}
{{ raise_exception('stop here: ' ~ n) }}
{{ raise_exception() }}
{{ dict(a=1, b=[2]) }} {{ dict({'x': 1}, y=2) }} {{ dict([('k', 'v')]) }} {{ dict() }} {{ dict(**{'q': 1}) }} {{ dict(a=1) | length }}
{{ {'a': 1}.a }} {{ {'a': {'b': [1, 2]}}['a'].b[1] }} {{ 'a,b'.split(',')[1].upper() }} {{ ['x', 'y'][0] ~ 'z' }} {{ {'a': {}} }} {{ {} }} {{ {'x': {'y': {'z': 1}}} }}
{{ [1, [2, [3]]] | length }} {{ 'a' 'b' "c" }} {{ 'tab\there\\n' }} {{ '\u00e9\x41\101' }} {{ '\d\.' }} {{ 'a\
b' }} {{ "it's" }} {{ 'say "hi"' }} {{ '%}' }} {{ '}}' }} {{ '{{' }} {{ '{#' }} {{ "{% x %}" }}
{% raw %}{{ not }} {% rendered %}{% endraw %} { { } } {x} # % }} %} #}
a {# comment #} b {#- tight -#} c {# multi
line #} d
  {% if t %}
  yes
  {% endif %}
end
  {%- if t %}  a  {%- endif %}  b
  {%+ if t %}c{% endif +%}
 d {%- set x = 1 -%} e
text {% if t %}  x
{% endif %}  y
{{ n }}
{{- n }}
 {{ n -}}

z
{% if t -%}
   lead
{%- endif %}
    {# indented comment #}
after
  {{ n }} keeps its indent
{% for i in l %}
    {{ i }}
  {% endfor %}
done	{% if t %}tab{% endif %}
	{% if t %}tabbed
	{% endif %}
{{ '  a  ' ~ 'b' }}{% if t %} %}{% endif %}
50%}
{"json": {"a": 1}, "b": [{-1}]}
{{ d.pop('b') }}
{{ l.append(4) }}
{{ d.update({'q': 1}) }}{{ d }}
{{ s.__class__ }}
{{ l.index(2) }} {{ l.count(1) }} {{ (1, 2, 1).count(1) }} {{ d.copy() == d }}
{{ s.nosuch }}| {{ s.nosuch is defined }} {{ n.real }} {{ d.b.c is defined }}
{{ s.nosuch() }}
{{ n() }}
{{ no.x }}|{{ no.x is defined }} {{ no['x'] is defined }}
{{ l.0 }} {{ l['0'] }}| {{ d[0] is defined }} {{ s['upper']() }} {{ d['get']('b') }}
{{ () }} {{ (1,) }} {{ (1, 2,) }} {{ () | length }} {{ ('a',) + (2, 3,) }} {{ 1 in (1,) }} {{ 'a'.startswith(('b', 'a',)) }} {{ ((1,), ()) }} {{ [(), (1,),] }} {{ {'a': (),} }} {{ s.upper() }} {{ (s)[0] }}
{% macro dn(a, b='x') %}{{ a }}{{ b }}{% endmacro %}{{ dn(none, none) }} {{ dn(b=none) }} {{ {'a': none}.get('a', 'd') }} {{ {'a': none}.a }} {{ [none] | first }} {{ [none] | last }} {{ missing | default(none) }} {{ 'x' | int(none) }} {{ namespace(a=none).a }} {% for i in [1, none] %}{{ loop.nextitem }}{{ loop.previtem }},{% endfor %} {{ [none] | map('default', 1) | list }} {{ [{'a': none}] | map(attribute='a', default=1) | list }}
{{ true }} {{ True }} {{ none }} {{ None }} {{ false }} {{ [True, False, None] }}
{{ html }} {{ html ~ '&' }} {{ html | upper }} {{ [html] }}
{{ (n > 3 and 'big') or 'small' }} {{ n > 3 and n < 10 }} {{ n >= 7 and not (n == 8 or n == 9) }} {{ not (t and no) }}
{{ -n | abs }} {{ - n }} {{ (-n) | abs }} {{ 2 * -3 }} {{ -2 ** 2 }} {{ 2 ** 3 ** 2 }} {{ 1 + 2 * 3 - 4 // 3 }} {{ (1 + 2) * 3 }} {{ 10 - 2 - 3 }} {{ 7 // 2 * 2 }} {{ n|string + 'x' }} {{ l|length > 2 }} {{ l|length == 3 and s|length > 1 }}
{%- set r = [] -%}{%- for m in msgs -%}{%- set r = r + [m.role] -%}{%- endfor -%}{{ r }} {% set r = msgs | map(attribute='role') | list + ['end'] %}{{ r }}
{{ msgs[-1]['content'] | default('', true) | trim ~ '!' }} {{ (msgs | last).content }} {{ msgs | map(attribute='role') | unique | list | length }} {{ 'tool' in msgs | map(attribute='role') | list }}
{{ msgs | selectattr('role', '==', 'user') | map(attribute='n') | sum }} {{ msgs | map(attribute='content.x', default='?') | list }} {{ nested | map('first') | list }}
{{ 1 is defined is true }}
{{ l | map('upper') | length }}
{{ 'a' is mapping or 'a' is string and not 'a' is number }} {{ (none or {}).get('x', 'dflt') }} {{ ({} or {'a': 1}).a }} {{ (d | tojson | fromjson).C }}
{{ [] is iterable }} {{ '' is none }} {{ 0 == false }} {{ '' == false }} {{ [] == false }}
{{ emoji.upper() }} {{ emoji[::-1] | length }} {{ emoji | list | length }} {{ emoji.split('b') }} {{ emoji.center(9, '·') }} {{ emoji | truncate(3, true, '', 0) }} {{ emoji.replace('', '|') }} {{ '%3s|' % '😀' }} {{ '😀' < 'ﬁ' }}
{%- macro t(x) -%}
  {%- if x -%} yes {%- else -%} no {%- endif -%}
{%- endmacro -%}
{{ t(1) }}|{{ t(0) }}
{% set m = {'a': 1, **{}} %}
{% do l.append(1) %}
{% include 'x' %}
{{ s | nosuchfilter }}
{{ s is nosuchtest }}
""".strip("\n")

# Probes that take several lines: from a line with this start up to the line before the next single probe.
MULTILINE = ("{% filter indent(2) %}a", "{{ [1, [2, [3]]] | length }} {{ 'a' 'b'", "a {# comment #} b", "{%- macro t(x) -%}")


def probes():
    lines = PROBES.split("\n")
    found = []
    index = 0
    while index < len(lines):
        line = lines[index]
        count = 1
        if line.startswith(MULTILINE[0]) or line.startswith(MULTILINE[1]):
            count = 2
        elif line.startswith(MULTILINE[2]):
            # Everything about white space is one template as well as many.
            end = next(i for i, text in enumerate(lines) if text.startswith("{{ d.pop('b') }}"))
            count = end - index
        elif line.startswith(MULTILINE[3]):
            count = 4
        found.append("\n".join(lines[index : index + count]))
        index += count
    block = next(text for text in found if text.startswith(MULTILINE[2]))
    rows = block.split("\n")
    for size in (1, 2, 3, 4, 6):
        for start in range(0, len(rows) - size + 1):
            text = "\n".join(rows[start : start + size])
            found.append(text)
            found.append(text + "\n")
            found.append(text.replace("\n", "\r\n") + "\n\n")
    return found


def probe_cases(env):
    cases = []
    for source in dict.fromkeys(probes()):
        def render(source=source):
            return env.from_string(source).render(**json.loads(json.dumps(V)))

        result = outcome(render)
        # Windows over the block of white space often cut a statement in two.
        if "syntax_error" not in result or "\n" not in source.rstrip("\n"):
            cases.append({"source": source, **result})
    return cases


# Random templates: whatever Python makes of them, the renderer makes too. Only what no template means is left out:
# slices of numbers, which Python's compiler folds where they are constant.
ATOMS = ["s", "e", "n", "z", "neg", "f", "one", "t", "no", "l", "ls", "d", "el", "ed", "msgs", "nl", "emoji", "q", "nested", "missing", "'a'", "'user'", "1", "2.0", "true", "none",
         "[1, 'x']", "{'k': n}", "(1, 2)", "msgs[0]", "d.a", "'  x '", "'a,b'"]
RANDOM_FILTERS = ("tojson trim upper lower capitalize title string length list first last join join(',') sort reverse|list unique|list map('string')|list map(attribute='role')|list int float abs "
                  "round default('d') default('d',true) indent sum min max replace('a','b') tojson(indent=2) select|list reject|list selectattr('role')|list center(9) wordcount truncate(5) dictsort "
                  "items|list batch(2)|list groupby('n') round(1) sort(reverse=true) map('length')|list select('string')|list").split(" ")
RANDOM_TESTS = "defined none string number mapping sequence iterable boolean odd even integer float true undefined in(l) eq(1) divisibleby(2) lower upper".split(" ")
RANDOM_TAILS = ("[0] [-1] ['a'] .a .role ['k'] [n] [5] .upper() .strip() .split() .split(',') .items()|list .keys()|list .get('a') .get('b',1) .title() .startswith('a') .replace('a','') .find('b') "
                ".capitalize() .isdigit() .splitlines() .lstrip('a') .rsplit(None,1) .isalpha() .isupper() .join(ls) .values()|list .zfill(5) .center(8)").split(" ")


def random_expression(rng, depth):
    if depth <= 0 or rng.random() < 0.15:
        return rng.choice(ATOMS)

    def part():
        return random_expression(rng, depth - 1)

    kind = rng.randrange(16)
    if kind == 0:
        return f"{part()} {rng.choice(['+', '-', '*', '//', '~', '~', '~', '+'])} {part()}"
    if kind == 1:
        return f"({part()}) {rng.choice(['==', '!=', '<', '>', 'in', 'not in', '>='])} ({part()})"
    if kind == 2:
        return f"{part()} {rng.choice(['and', 'or'])} {part()}"
    if kind == 3:
        return f"(not {part()})"
    if kind == 4:
        return f"({part()} if {part()} else {part()})"
    if kind in (5, 6, 7):
        return f"{part()} | {rng.choice(RANDOM_FILTERS)}"
    if kind == 8:
        return f"({part()} is {rng.choice(['', 'not '])}{rng.choice(RANDOM_TESTS)})"
    if kind in (9, 10, 11):
        return f"({part()}){rng.choice(RANDOM_TAILS)}"
    if kind == 12:
        return f"[{part()}, {part()}]"
    if kind == 13:
        return f"({part()})"
    return f"({{'a': {part()}}})" if kind == 14 else f"(-{part()})"


def random_statement(rng, depth):
    kind = rng.randrange(9)
    if depth <= 0 or kind < 4:
        return "{{%s %s %s}}" % (rng.choice(["", "-", ""]), random_expression(rng, 3), rng.choice(["", "-", ""]))

    def inner():
        return random_statement(rng, depth - 1)

    def value(level=2):
        return random_expression(rng, level)

    if kind == 4:
        opening = "%s{%%%s if %s %%}" % (rng.choice(["", " ", "\n  "]), rng.choice(["", "-", "+"]), value())
        return opening + rng.choice(["", "\n"]) + inner() + "{% else %}" + inner() + "{% endif " + rng.choice(["", "-"]) + "%}\n"
    if kind == 5:
        return "{%% for x in %s %%}%s{{ loop.index }}%s{%% set n = loop.index0 %%}%s{%% endfor %%}" % (value(), rng.choice(["", "\n "]), inner(), inner())
    if kind == 6:
        return "{%% set %s = %s %%}%s" % (rng.choice(["n", "s", "zz", "l"]), value(), inner())
    if kind == 7:
        return "{%% set s %%}%s{%% endset %%}[{{ s }}]" % inner()
    return "{%% macro mm(a, b=%s) %%}%s{{ a }}{{ b }}{%% endmacro %%}{{ mm(%s) }}" % (value(1), inner(), value(1))


def random_cases(env, count):
    rng = random.Random(20260307)
    cases = []
    while len(cases) < count:
        source = "{{ " + random_expression(rng, 4) + " }}" if rng.random() < 0.5 else random_statement(rng, 3)
        result = outcome(lambda: env.from_string(source).render(**json.loads(json.dumps(V))))
        # Failures are most of what chance makes; one in six is enough. Addresses of objects are not golden.
        if " at 0x" in result.get("output", "") or len(result.get("output", "")) > 400 or "syntax_error" in result or ("output" not in result and rng.random() < 0.85):
            continue
        cases.append({"source": source, **result})
    return cases


def main_templates():
    import jinja2
    import transformers

    env = environment()
    head = header(jinja2=jinja2.__version__, transformers=transformers.__version__)
    write("templates.json", {
        "header": head,
        "now": NOW.isoformat(),
        "templates": TEMPLATES,
        "conversations": CONVERSATIONS,
        "settings": SETTINGS,
        "special_tokens": SPECIAL,
        "cases": template_cases(env),
        "continuations": continuations(),
    })
    write("template-probes.json", {"header": head, "now": NOW.isoformat(), "variables": V, "cases": probe_cases(env)})
    write("template-random.json", {"header": head, "now": NOW.isoformat(), "variables": V, "cases": random_cases(env, 1500)})


# ---- Tokenizers -------------------------------------------------------------------------------------------------------------

CORPUS = [
    "the router sends each request to the worker whose cache already holds the longest prefix of its prompt " * 3,
    "prefill workers process the prompt, decode workers generate the tokens, and blocks move between them " * 3,
    "def encode(text: str) -> list[int]:\n    return [ord(c) for c in text]  # 12345 67890\n" * 4,
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. Voilà l'été; ¿Qué tal? naïve façade " * 3,
    "世界 你好，世界。こんにちは世界 안녕하세요 세계 Привет мир Γειά σου Κόσμε مرحبا بالعالم שלום עולם नमस्ते दुनिया " * 3,
    "😀 👍🏽 👩‍👩‍👧 🇩🇪 ❤️ I'm you're we've they'll it's don't 3.14 1,000,000 $5 100% <tag> {json: [1, 2]} " * 3,
]

LLAMA_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def byte_level():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<|begin|>", "<|end|>", "<|user|>", "<|assistant|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return tok


def llama_like():
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tok = Tokenizer(models.BPE(ignore_merges=True))
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA_SPLIT), behavior="isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=900, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tok.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"])
    tok.add_tokens([AddedToken("<think>", normalized=False), AddedToken("</think>", normalized=False), AddedToken("<工具 ok>", normalized=False)])
    tok.add_special_tokens([AddedToken("<|wide|>", rstrip=True, normalized=False)])
    begin = tok.token_to_id("<|begin_of_text|>")
    tok.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|> $B", special_tokens=[("<|begin_of_text|>", begin)])])
    return tok


def sentencepiece_like():
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors, trainers

    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trained.train_from_iterator([text[:400] for text in CORPUS[:4]], trainers.BpeTrainer(vocab_size=500, show_progress=False, max_token_length=12))
    model = json.loads(trained.to_str())["model"]
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
    for byte in range(256):
        vocab[f"<0x{byte:02X}>"] = len(vocab)
    for token in sorted(model["vocab"], key=model["vocab"].get):
        vocab.setdefault(token, len(vocab))
    merges = [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in model["merges"]]
    tok = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tok.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tok.add_special_tokens([AddedToken("<unk>", normalized=False), AddedToken("<s>", normalized=False), AddedToken("</s>", normalized=False)])
    tok.add_special_tokens([AddedToken("[INST]", normalized=False), AddedToken("[/INST]", normalized=False)])
    tok.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    return tok


FAMILIES = {"byte-level": byte_level, "llama": llama_like, "sentencepiece": sentencepiece_like}

FIXED_TEXTS = [
    "", " ", "  ", "\n", "\n\n  \n", "a", " a", "a ", "Hello, world!", "the router sends", "  leading and trailing  ", "tabs\tand\nnewlines\r\n", "12345 6 78901234",
    "I'm you're WE'VE don't", "naïve façade — “quotes”", "e\u0301 versus é", "世界", "你好，世界。", "こんにちは", "안녕하세요", "Привет, мир", "مرحبا بالعالم", "שלום", "नमस्ते",
    "😀", "👍🏽", "👩‍👩‍👧", "🇩🇪🇫🇷", "❤️", "a😀b👩‍👩‍👧c世", "\u200b\u200d\ufeff", "\u00a0nbsp", "\ue000\uffff", "𝕏𝟙", "\u0000\u0001\u007f", "x" * 200, "ab " * 100, "<|begin|>hi<|end|>",
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>", "<think> a </think>b", "x<工具 ok>y", "<|wide|>   spaces after", "a <|wide|>\n\nb", "[INST] Hi [/INST] yo</s><s>", "<s>", "</s> text",
    "<|user|>", "<|us er|>", "<0x41>", "▁under▁", "def f(x):\n\treturn x**2  # ok\n", "{\"a\": [1, 2.5, null]}", "https://example.org/a?b=c&d=e#f", "C:\\path\\file", "....", "!!??",
]


def texts():
    rng = random.Random(7)
    pools = ["abcdefghij ", "ABC abc 123 ", "世界你好こんにちは한국어 ", "😀👍👩‍🇩🇪❤️🏽\u200d ", "éèüßñøå ", " \n\t\r", ".,;:!?()[]{}<>|\\/\"'`~@#$%^&*-_=+ ", "".join(chr(c) for c in range(0x20, 0x250)),
             "<|begin|><|end|><s></s><think><|eot_id|>[INST] "]
    out = list(FIXED_TEXTS)
    while len(out) < 240:
        pool = "".join(rng.sample(pools, rng.randint(1, 3)))
        out.append("".join(rng.choice(pool) for _ in range(rng.randint(1, 60))))
    for _ in range(30):
        words = " ".join(CORPUS).split(" ")
        out.append(" ".join(rng.choice(words) for _ in range(rng.randint(2, 30))))
    for _ in range(6):
        parts = [rng.choice(["<|begin|>", "<|eot_id|>", "[INST]", "</s>", "<|wide|>", "<think>"]) + " ".join(rng.choice(CORPUS).split(" ")[: rng.randint(5, 60)]) for _ in range(12)]
        out.append("".join(parts))
    return out


def main_tokenizers():
    import tokenizers

    rng = random.Random(11)
    head = header(tokenizers=tokenizers.__version__)
    samples = texts()
    for name, make in FAMILIES.items():
        tok = make()
        path = OUT / f"tokenizer-{name}.json"
        OUT.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(json.loads(tok.to_str()), ensure_ascii=False) + "\n")
        print(path, path.stat().st_size)
        cases = []
        for text in samples:
            ids = tok.encode(text, add_special_tokens=False).ids
            case = {"text": text, "ids": ids, "decoded": tok.decode(ids, skip_special_tokens=False)}
            dressed = tok.encode(text, add_special_tokens=True).ids
            if dressed != ids:
                case["ids_with_special"] = dressed
            skipped = tok.decode(ids, skip_special_tokens=True)
            if skipped != case["decoded"]:
                case["decoded_skipping"] = skipped
            cases.append(case)
        size = tok.get_vocab_size()
        random_ids = [[rng.randrange(size + 3) for _ in range(rng.randint(1, 24))] for _ in range(150)]
        decodes = [{"ids": ids, "decoded": tok.decode(ids, skip_special_tokens=False), "decoded_skipping": tok.decode(ids, skip_special_tokens=True)} for ids in random_ids]
        single = [tok.decode([i], skip_special_tokens=False) for i in range(size)]
        write(f"tokens-{name}.json", {"header": head, "vocabulary_size": size, "texts": cases, "decodes": decodes, "single": single})


if __name__ == "__main__":
    chosen = sys.argv[1:] or ["templates", "tokenizers"]
    if "templates" in chosen:
        main_templates()
    if "tokenizers" in chosen:
        main_tokenizers()
