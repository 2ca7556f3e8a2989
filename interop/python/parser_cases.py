"""What models of each family write: the inputs of `parser_corpus.py`."""
import json, re

ROME = {"city": "Rome"}
FULL = {"city": "São Paulo \"é\" 東京 🙂", "days": 3, "metric": True, "scale": 1.5, "tags": ["a", "b {c}"], "place": {"x": {"y": [1, {"z": None}]}}}
ZONE = {"zone": "Europe/Rome"}


def dumps(value):
    return json.dumps(value, ensure_ascii=False)


def named(name, args, key="arguments"):
    return '{"name": "%s", "%s": %s}' % (name, key, dumps(args))


def battery(tool, wrap, block=None, reasoning=None):
    """The cases that every family has. `wrap(name, args)`: one call as text; `block(list)`: several together."""
    several = block or (lambda calls: "".join(wrap(*call) for call in calls))
    one = several([("get_weather", ROME)])
    full = several([("get_weather", FULL)])
    two = several([("get_weather", ROME), ("get_time", ZONE)])
    # The marker with which calls begin.
    opening = re.match(r"\s*(\]<\]minimax\[>\[<\w+>|<\|open\|>\w+<\|sep\|>|<[^>]*>|\[[A-Z_]+\]|functools|\[)", one)[0]
    cases = [
        ("one call", one), ("text before", "Let me look. " + one), ("text after", one + " Done."), ("text around", "Before\n\n" + one + "\n\nafter it."),
        ("everything in the arguments", full), ("two calls", two), ("two calls with text around", "A " + two + " B"),
        ("two blocks with text between", one + " and " + several([("get_time", ZONE)])), ("two blocks behind each other", one + several([("get_time", ZONE)])),
        ("two blocks on lines", one + "\n" + several([("get_time", ZONE)]) + "\n"),
        ("no arguments", several([("ping", {})])), ("unknown tool", several([("nobody", ROME)])), ("same call twice", one + one),
        ("cut at the end", one[:-1]), ("cut late", one[:len(one) * 4 // 5]), ("cut in the middle", "Text " + full[:len(full) // 2]), ("cut early", one[:len(one) // 4]),
        ("second cut", two[:len(two) - len(two) // 5]), ("plain text", "Nothing to call: a < b, [1, 2], {\"x\": 1} and 3 > 2."), ("text in braces", "{not json} [also not]"),
        ("blank lines before", "\n\n" + one), ("blanks behind", one + "  \n"), ("opened in a text", "a " + opening + " b"), ("opened at the end", "a " + opening),
    ]
    made = [dict(name=name, tool=tool, reasoning=reasoning, text=text) for name, text in cases]
    made += [
        dict(name="length", tool=tool, reasoning=reasoning, text=one, finish="length"),
        dict(name="length, cut", tool=tool, reasoning=reasoning, text="Hm " + full[:len(full) // 2], finish="length"),
        dict(name="no tools", tool=tool, reasoning=reasoning, text="A " + one + " B", tools=False),
        dict(name="choice none", tool=tool, reasoning=reasoning, text="A " + one + " B", body={"tool_choice": "none"}),
        dict(name="choice auto", tool=tool, reasoning=reasoning, text="A " + one + " B", body={"tool_choice": "auto"}),
        dict(name="one at a time", tool=tool, reasoning=reasoning, text=two, body={"parallel_tool_calls": False}),
        dict(name="special tokens", tool=tool, reasoning=reasoning, text="A " + two + " B", special=True),
        dict(name="special tokens kept", tool=tool, reasoning=reasoning, text="A " + two + " B", special=True, body={"skip_special_tokens": False}),
        dict(name="special tokens skipped", tool=tool, reasoning=reasoning, text="A " + one + " B", special=True, body={"skip_special_tokens": True}),
        dict(name="required, in the family's form", tool=tool, reasoning=reasoning, text=two, body={"tool_choice": "required"}),
        dict(name="named, in the family's form", tool=tool, reasoning=reasoning, text=one, body={"tool_choice": {"type": "function", "function": {"name": "get_weather"}}}),
    ]
    return made


def more(tool, *cases, reasoning=None, **fields):
    return [dict(name=name, tool=tool, reasoning=reasoning, text=text, **fields) for name, text in cases]


def hermes_like(tool):
    wrap = lambda name, args: "<tool_call>\n" + named(name, args) + "\n</tool_call>"
    return battery(tool, wrap) + more(
        tool,
        ("without newlines", "<tool_call>" + named("get_weather", ROME) + "</tool_call>"),
        ("parameters", "<tool_call>" + named("get_weather", ROME, "parameters") + "</tool_call>"),
        ("arguments first", '<tool_call>{"arguments": {"city": "Rome"}, "name": "get_weather"}</tool_call>'),
        ("arguments as text", '<tool_call>{"name": "get_weather", "arguments": "{\\"city\\": \\"Rome\\"}"}</tool_call>'),
        ("name only", '<tool_call>{"name": "ping"}</tool_call>'), ("no name", '<tool_call>{"arguments": {"city": "Rome"}}</tool_call> after'),
        ("not JSON", "A <tool_call>get_weather(Rome)</tool_call> B"), ("bad JSON", 'A <tool_call>{"name": "get_weather", "arguments": {"city": Rome}}</tool_call> B'),
        ("bad then good", '<tool_call>oops</tool_call><tool_call>' + named("get_weather", ROME) + "</tool_call>"),
        ("good then bad", '<tool_call>' + named("get_weather", ROME) + '</tool_call><tool_call>oops</tool_call> end'),
        ("a list in one tag", "<tool_call>[" + named("get_weather", ROME) + ", " + named("get_time", ZONE) + "]</tool_call>"),
        ("two in one tag", "<tool_call>" + named("get_weather", ROME) + "\n" + named("get_time", ZONE) + "</tool_call>"),
        ("no opening tag", named("get_weather", ROME) + "</tool_call>"), ("bare JSON", named("get_weather", ROME)), ("only a closing tag", "a </tool_call> b"),
        ("empty tag", "x <tool_call></tool_call> y"), ("tag in an argument", "<tool_call>" + named("get_weather", {"city": "a </tool_call> b"}) + "</tool_call>"),
        ("opening tag in an argument", "<tool_call>" + named("get_weather", {"city": "a <tool_call> b"}) + "</tool_call>"),
        ("opened twice", "<tool_call><tool_call>" + named("get_weather", ROME) + "</tool_call>"),
        ("unclosed, then another", "<tool_call>" + named("get_weather", ROME) + "<tool_call>" + named("get_time", ZONE) + "</tool_call>"),
        ("almost a tag", "a <tool_cal l> <tool_ca"), ("ends within a tag", "some text <tool_c"), ("text with angles", "if a<b and <tool> then"),
        ("trailing comma", '<tool_call>{"name": "get_weather", "arguments": {"city": "Rome",}}</tool_call>'),
        ("single quotes", "<tool_call>{'name': 'get_weather', 'arguments': {'city': 'Rome'}}</tool_call>"),
        ("compact", '<tool_call>{"name":"get_weather","arguments":{"city":"Rome","days":2}}</tool_call>'),
        ("big numbers", '<tool_call>{"name": "get_weather", "arguments": {"days": 12345678901234567890, "scale": 1.0, "x": 1e3}}</tool_call>'),
        ("escapes", '<tool_call>{"name": "get_weather", "arguments": {"city": "\\u00e9\\n\\t\\"\\/"}}</tool_call>'),
        ("null arguments", '<tool_call>{"name": "ping", "arguments": null}</tool_call>'), ("more fields", '<tool_call>{"id": 7, "name": "ping", "arguments": {}, "type": "x"}</tool_call>'),
    )


def qwen_xml(name, args):
    def value(v):
        return v if isinstance(v, str) else dumps(v)
    return f"<tool_call>\n<function={name}>\n" + "".join(f"<parameter={k}>\n{value(v)}\n</parameter>\n" for k, v in args.items()) + "</function>\n</tool_call>"


def xml_like(tool):
    f = lambda inner: f"<tool_call>{inner}</tool_call>"
    return battery(tool, qwen_xml) + more(
        tool,
        ("on one line", f("<function=get_weather><parameter=city>Rome</parameter></function>")), ("no outer tag", "Hi <function=get_weather>\n<parameter=city>\nRome\n</parameter>\n</function> bye"),
        ("no outer end", "<tool_call>\n<function=get_weather>\n<parameter=city>\nRome\n</parameter>\n</function>"), ("no outer start", "<function=get_weather>\n<parameter=city>\nRome\n</parameter>\n</function>\n</tool_call>"),
        ("no function end", "<tool_call>\n<function=get_weather>\n<parameter=city>\nRome\n</parameter>\n</tool_call>"), ("no parameter end", "<tool_call>\n<function=get_weather>\n<parameter=city>\nRome\n</function>\n</tool_call>"),
        ("two functions in one tag", f("<function=get_weather><parameter=city>Rome</parameter></function><function=get_time><parameter=zone>UTC</parameter></function>")),
        ("values by their types", f("<function=get_weather>\n<parameter=city>\n12\n</parameter>\n<parameter=days>\n3\n</parameter>\n<parameter=metric>\nTrue\n</parameter>\n<parameter=scale>\n1.0\n</parameter>\n<parameter=tags>\n[\"a\", 1]\n</parameter>\n<parameter=place>\n{'x': 1}\n</parameter>\n</function>")),
        ("values of the wrong types", f("<function=get_weather>\n<parameter=days>\nthree\n</parameter>\n<parameter=metric>\nmaybe\n</parameter>\n<parameter=scale>\nabc\n</parameter>\n<parameter=tags>\nnot a list\n</parameter>\n</function>")),
        ("an unknown parameter", f("<function=get_weather>\n<parameter=other>\n12\n</parameter>\n<parameter=more>\n{\"a\": 1}\n</parameter>\n<parameter=text>\nhello\n</parameter>\n</function>")),
        ("null", f("<function=get_weather>\n<parameter=city>\nnull\n</parameter>\n<parameter=days>\nnull\n</parameter>\n</function>")),
        ("many lines", f("<function=get_weather>\n<parameter=city>\nline 1\n  line 2\n\nline 4\n</parameter>\n</function>")), ("entities", f("<function=get_weather>\n<parameter=city>\na &lt; b &amp; c\n</parameter>\n</function>")),
        ("angles in a value", f("<function=get_weather>\n<parameter=city>\nif a < b and <b>c</b>\n</parameter>\n</function>")), ("empty value", f("<function=get_weather>\n<parameter=city>\n</parameter>\n</function>")),
        ("no function", "A <tool_call>hello</tool_call> B"), ("JSON in the tag", 'A <tool_call>{"name": "ping", "arguments": {}}</tool_call> B'), ("only a closing tag", "a </tool_call> b"),
        ("almost a tag", "a <tool_cal l> <func tion= <tool_ca"), ("ends within a tag", "some text <func"), ("function without a name", f("<function=></function>")),
        ("quoted name", f('<function="get_weather"><parameter="city">Rome</parameter></function>')), ("spaces around", f(" <function= get_weather > <parameter= city > Rome </parameter> </function> ")),
        ("floats and booleans", f("<function=get_weather><parameter=days>3.7</parameter><parameter=metric>1</parameter><parameter=scale>5</parameter></function>")),
        ("same parameter twice", f("<function=get_weather><parameter=city>A</parameter><parameter=city>B</parameter></function>")),
    )


def minimax(name, args):
    def value(v):
        return v if isinstance(v, str) else dumps(v)
    return f'<invoke name="{name}">\n' + "".join(f'<parameter name="{k}">{value(v)}</parameter>\n' for k, v in args.items()) + "</invoke>\n"


def dsml(name, args):
    def parameter(k, v):
        return f'<｜DSML｜parameter name="{k}" string="{"true" if isinstance(v, str) else "false"}">{v if isinstance(v, str) else dumps(v)}</｜DSML｜parameter>\n'
    return f'<｜DSML｜invoke name="{name}">\n' + "".join(parameter(k, v) for k, v in args.items()) + "</｜DSML｜invoke>\n"


def dsml_block(kind):
    return lambda calls: f"\n\n<｜DSML｜{kind}>\n" + "".join(dsml(*call) for call in calls) + f"</｜DSML｜{kind}>"


def dsml_like(tool, kind):
    block = dsml_block(kind)
    return battery(tool, None, block) + more(
        tool,
        ("no separator", "Hi." + block([("get_weather", ROME)]).lstrip()), ("no block", "Hi " + dsml("get_weather", ROME) + " bye"), ("bad JSON value", block([]).replace(">\n<", '>\n<｜DSML｜invoke name="get_weather">\n<｜DSML｜parameter name="days" string="false">three</｜DSML｜parameter>\n</｜DSML｜invoke>\n<')),
        ("empty block", "A" + block([]) + "B"), ("no string mark", block([]).replace(">\n<", '>\n<｜DSML｜invoke name="get_weather">\n<｜DSML｜parameter name="city">Rome</｜DSML｜parameter>\n</｜DSML｜invoke>\n<')),
        ("newlines in a value", block([("get_weather", {"city": "a\n b\n"})])), ("almost a block", "a \n\n<｜DSML｜oops> b"), ("invoke cut", block([("get_weather", ROME)])[:60]),
        ("one good, one cut", (block([("get_weather", ROME), ("get_time", ZONE)]))[:-70]),
    )


def deepseek_v3(calls):
    return "<｜tool▁calls▁begin｜>" + "\n".join(f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n{dumps(args)}\n```<｜tool▁call▁end｜>" for name, args in calls) + "<｜tool▁calls▁end｜>"


def deepseek_v31(calls):
    return "<｜tool▁calls▁begin｜>" + "".join(f"<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{dumps(args)}<｜tool▁call▁end｜>" for name, args in calls) + "<｜tool▁calls▁end｜>"


def deepseek_like(tool, block, single):
    return battery(tool, None, block) + more(
        tool,
        ("bad arguments", "A " + block([("get_weather", ROME)]).replace('"Rome"', "Rome") + " B"), ("empty block", "A <｜tool▁calls▁begin｜><｜tool▁calls▁end｜> B"), ("no outer start", block([("get_weather", ROME)]).replace("<｜tool▁calls▁begin｜>", "")),
        ("no outer end", block([("get_weather", ROME)]).replace("<｜tool▁calls▁end｜>", "")), ("no call end", block([("get_weather", ROME)]).replace("<｜tool▁call▁end｜>", "")), ("other form", single([("get_weather", ROME)])),
        ("good and bad", block([("get_weather", ROME), ("get_time", ZONE)]).replace('"Europe/Rome"', "oops")), ("many lines", block([("get_weather", ROME)]).replace('{"city": "Rome"}', '{\n  "city": "Rome",\n  "days": 2\n}')),
        ("name with blanks", block([(" get_weather ", ROME)])),
    )


def harmony_call(name, args, start=True):
    return ("<|start|>assistant" if start else "") + f"<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>{dumps(args)}<|call|>"


def harmony_cases(tool, reasoning):
    analysis = "<|channel|>analysis<|message|>Need the weather of Rome.<|end|>"
    final = "<|start|>assistant<|channel|>final<|message|>It is sunny.<|return|>"
    fields = dict(special=True)
    block = lambda calls: "".join(harmony_call(name, args, start=at > 0) for at, (name, args) in enumerate(calls))
    made = [dict(case, special=True) for case in battery(tool, None, block, reasoning)]
    return made + more(
        tool,
        ("analysis and call", analysis + harmony_call("get_weather", ROME)), ("analysis and final", analysis + final), ("final only", "<|channel|>final<|message|>Hello there."), ("final, returned", "<|channel|>final<|message|>Hello there.<|return|>"),
        ("analysis only", "<|channel|>analysis<|message|>Thinking on and on"), ("commentary preamble", analysis + "<|start|>assistant<|channel|>commentary<|message|>I will look.<|end|>" + harmony_call("get_weather", ROME)),
        ("analysis, two calls", analysis + harmony_call("get_weather", ROME) + harmony_call("get_time", ZONE)), ("recipient in the role", analysis + '<|start|>assistant to=functions.get_weather<|channel|>commentary<|constrain|>json<|message|>{"city": "Rome"}<|call|>'),
        ("no constrain", '<|channel|>commentary to=functions.get_weather<|message|>{"city": "Rome"}<|call|>'), ("no call token", analysis + harmony_call("get_weather", ROME).replace("<|call|>", "")),
        ("bad arguments", '<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": Rome}<|call|>'), ("call in analysis", '<|channel|>analysis to=functions.get_weather code<|message|>{"city": "Rome"}<|call|>'),
        ("unknown recipient", "<|channel|>commentary to=browser.search <|constrain|>json<|message|>{\"q\": 1}<|call|>"), ("call and final", harmony_call("get_weather", ROME, False) + final), ("unicode", analysis.replace("Rome", "東京 🙂") + final.replace("sunny", "晴れ 🙂")),
        ("two analyses", analysis + "<|start|>assistant" + analysis + final), ("plain", "Just text, no channels."),
        ("two finals", "<|channel|>final<|message|>One.<|end|><|start|>assistant<|channel|>final<|message|>Two.<|return|>"), ("final behind the end", "<|channel|>final<|message|>One.<|return|><|start|>assistant<|channel|>final<|message|>Two.<|return|>"),
        ("preamble only", "<|channel|>commentary<|message|>I will look."), ("preamble, closed", "<|channel|>commentary<|message|>I will look.<|end|>"), ("preamble and final", "<|channel|>commentary<|message|>I will look.<|end|>" + final), ("final and call", "<|channel|>final<|message|>I look.<|end|>" + harmony_call("get_weather", ROME)),
        ("call, then analysis", harmony_call("get_weather", ROME, False) + "<|start|>assistant" + analysis + final), ("started", "<|start|>assistant" + analysis + final), ("another role", "<|start|>user<|message|>Hello<|end|>" + final), ("another channel", "<|channel|>other<|message|>Hello<|end|>" + final), ("no channel", "<|message|>Hello<|end|>" + final),
        ("blanks in the thought", "<|channel|>analysis<|message|> a\n\n b \n<|end|>" + final), ("blanks in the answer", "<|channel|>final<|message|>\n It is sunny. \n\n<|return|>"), ("thought cut at its end", "<|channel|>analysis<|message|>Hm.<|en"), ("answer cut at its end", "<|channel|>final<|message|>Fine.<|ret"), ("cut in a header", analysis + "<|start|>assist"), ("cut in a channel", analysis + "<|start|>assistant<|channel|>fin"),
        ("spread arguments", '<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{\n  "city": "Rome  A",\n  "days": 1.0\n}<|call|>'), ("no arguments at all", "<|channel|>commentary to=functions.ping <|constrain|>json<|message|><|call|>"), ("text for arguments", "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>Rome<|call|>"), ("big numbers", '<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"days": 12345678901234567890, "scale": 1.0, "x": 1e3}<|call|>'),
        ("dotted name", '<|channel|>commentary to=functions.a.b <|constrain|>json<|message|>{}<|call|>'), ("no prefix", '<|channel|>commentary to=get_weather <|constrain|>json<|message|>{"city": "Rome"}<|call|>'), ("call in the final channel", '<|channel|>final to=functions.get_weather <|constrain|>json<|message|>{"city": "Rome"}<|call|>'), ("call ended as a message", '<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Rome"}<|end|>'), ("call returned", '<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Rome"}<|return|>'),
        ("call ended as a message, then final", '<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Rome"}<|end|>' + final), ("json behind a blank", '<|channel|>commentary to=functions.get_weather json<|message|>{"city": "Rome"}<|call|>'), ("text behind a thought", analysis + "Hello"), ("text behind an answer", final + "Hello"), ("text between messages", analysis + " x " + final), ("unknown recipient and final", '<|channel|>commentary to=browser.search<|message|>{"q": 1}<|call|>' + final),
        ("code recipient", "<|channel|>analysis to=python code<|message|>print(1)<|call|>" + final), ("a tag in the answer", "<|channel|>final<|message|>use <tool_call> and <|x|> here<|return|>"), ("channel twice", "<|channel|>analysis<|channel|>final<|message|>Hello<|return|>"), ("message twice", "<|channel|>final<|message|>a<|message|>b<|return|>"), ("channel in an answer", "<|channel|>final<|message|>a<|channel|>final<|message|>b<|return|>"), ("empty answer", "<|channel|>final<|message|><|return|>"), ("empty thought", "<|channel|>analysis<|message|><|end|>" + final),
        ("two calls, second cut", harmony_call("get_weather", ROME, False) + harmony_call("get_time", ZONE)[:-20]), ("start in an answer", "<|channel|>final<|message|>a<|start|>assistant<|channel|>final<|message|>b<|return|>"),
        reasoning=reasoning, **fields) + [dict(case, **changes, name=f"{case['name']}, {what}") for what, changes in [("no tools", dict(tools=False)), ("choice none", dict(body={"tool_choice": "none"}))] for case in more(
            tool, ("call", harmony_call("get_weather", ROME, False)), ("thought and call", analysis + harmony_call("get_weather", ROME)), ("thought, preamble and call", analysis + "<|start|>assistant<|channel|>commentary<|message|>I will look.<|end|>" + harmony_call("get_weather", ROME)), ("thought and answer", analysis + final), ("preamble", "<|channel|>commentary<|message|>I will look.<|end|>"), ("plain", "Just text."), ("call, cut", harmony_call("get_weather", ROME, False)[:-20]), ("call and answer", harmony_call("get_weather", ROME, False) + final), reasoning=reasoning, special=True)] + [
        dict(name=f"{name}, {what}", tool=tool, reasoning=reasoning, special=True, text=around(text), body={"tool_choice": choice})
        for name, text, choice in [("required JSON", '[{"name": "get_weather", "parameters": {"city": "Rome"}}]', "required"), ("named JSON", '{"city": "Rome"}', {"type": "function", "function": {"name": "get_weather"}})]
        for what, around in [("bare", lambda text: text), ("in an answer", lambda text: f"<|channel|>final<|message|>{text}<|return|>"), ("behind a thought", lambda text: f"{analysis}<|start|>assistant<|channel|>final<|message|>{text}<|return|>")]
    ] + [dict(name="thought and call, required", tool=tool, reasoning=reasoning, special=True, text=analysis + harmony_call("get_weather", ROME), body={"tool_choice": "required"})]


def gemma(calls):
    def value(v):
        if isinstance(v, str):
            return f'<|"|>{v}<|"|>'
        if isinstance(v, dict):
            return "{" + ",".join(f"{k}:{value(x)}" for k, x in v.items()) + "}"
        if isinstance(v, list):
            return "[" + ",".join(value(x) for x in v) + "]"
        return dumps(v)
    return "".join(f"<|tool_call>call:{name}{value(args)}<tool_call|>" for name, args in calls)


def glm(name, args):
    return f"<tool_call>{name}" + "".join(f"<arg_key>{k}</arg_key><arg_value>{v if isinstance(v, str) else dumps(v)}</arg_value>" for k, v in args.items()) + "</tool_call>"


def kimi(calls):
    return "<|tool_calls_section_begin|>" + "".join(f"<|tool_call_begin|>functions.{name}:{at}<|tool_call_argument_begin|>{dumps(args)}<|tool_call_end|>" for at, (name, args) in enumerate(calls)) + "<|tool_calls_section_end|>"


def python_list(calls):
    def literal(v):
        return repr(v)
    return "[" + ", ".join(f"{name}(" + ", ".join(f"{k}={literal(v)}" for k, v in args.items()) + ")" for name, args in calls) + "]"


def json_list(calls, key="arguments"):
    return "[" + ", ".join(named(name, args, key) for name, args in calls) + "]"


FAMILIES = {
    "hermes": hermes_like("hermes"),
    "qwen25": hermes_like("qwen25"),
    "qwen3_coder": xml_like("qwen3_coder"),
    "nemotron_nano": xml_like("nemotron_nano"),
    "llama3_json": battery("llama3_json", None, lambda calls: "<|python_tag|>" + "; ".join(named(n, a, "parameters") for n, a in calls)) + more(
        "llama3_json", ("bare", named("get_weather", ROME, "parameters")), ("bare, text before", "Sure: " + named("get_weather", ROME, "parameters")), ("bare, text after", named("get_weather", ROME, "parameters") + " that is it"), ("bare, arguments", named("get_weather", ROME)),
        ("bare, two", named("get_weather", ROME, "parameters") + "; " + named("get_time", ZONE, "parameters")), ("bare, on lines", named("get_weather", ROME, "parameters") + "\n" + named("get_time", ZONE, "parameters")), ("bare list", json_list([("get_weather", ROME), ("get_time", ZONE)], "parameters")),
        ("bare, everything", named("get_weather", FULL, "parameters")), ("bare, cut", named("get_weather", ROME, "parameters")[:-2]), ("bare, unknown", named("nobody", ROME, "parameters")), ("other JSON", '{"answer": 42}'), ("other JSON with a name", '{"name": "x"}'),
        ("tag and text", "<|python_tag|>print(1)"), ("tag, two on lines", "<|python_tag|>" + named("get_weather", ROME, "parameters") + "\n" + named("get_time", ZONE, "parameters")), ("two tags", "<|python_tag|>" + named("get_weather", ROME) + "<|python_tag|>" + named("get_time", ZONE)),
        ("tag and a list", "<|python_tag|>" + json_list([("get_weather", ROME), ("get_time", ZONE)])), ("blank before", "  \n" + named("get_weather", ROME, "parameters"))),
    "mistral": battery("mistral", None, lambda calls: "[TOOL_CALLS]" + json_list(calls)) + more(
        "mistral", ("blank behind the marker", "[TOOL_CALLS] " + json_list([("get_weather", ROME)])), ("with an end marker", "[TOOL_CALLS]" + json_list([("get_weather", ROME)]) + "[/TOOL_CALLS] bye"), ("one object", "[TOOL_CALLS]" + named("get_weather", ROME)),
        ("bare list", json_list([("get_weather", ROME)])), ("name and arguments", '[TOOL_CALLS]get_weather{"city": "Rome"}'), ("name, ARGS, arguments", '[TOOL_CALLS]get_weather[ARGS]{"city": "Rome"}[TOOL_CALLS]get_time[ARGS]{"zone": "UTC"}'),
        ("bad JSON", "A [TOOL_CALLS][{oops}] B"), ("ids", '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Rome"}, "id": "abcdefghi"}]'), ("only the marker", "x [TOOL_CALLS]"), ("almost a marker", "x [TOOL_CALL] y [TOOL"), ("bare object", named("get_weather", ROME)),
        ("brackets in text", "a [1] and [TOOL b] c"), ("compact", '[TOOL_CALLS][{"name":"get_weather","arguments":{"city":"Rome"}}]'), ("only an end marker", "x [/TOOL_CALLS] y")),
    "phi4": battery("phi4", None, lambda calls: "functools" + json_list(calls)) + more(
        "phi4", ("word in a text", "the functools module is nice"), ("blank behind the marker", "functools " + json_list([("get_weather", ROME)])), ("bad JSON", "A functools[{oops}] B"), ("bare list", json_list([("get_weather", ROME)])), ("part of the word", "func and fun")),
    "nemotron_deci": battery("nemotron_deci", None, lambda calls: "<TOOLCALL>" + json_list(calls) + "</TOOLCALL>") + more(
        "nemotron_deci", ("one object", "<TOOLCALL>" + named("get_weather", ROME) + "</TOOLCALL>"), ("bad JSON", "A <TOOLCALL>[{oops}]</TOOLCALL> B"), ("bare list", json_list([("get_weather", ROME)])), ("only an end", json_list([("get_weather", ROME)]) + "</TOOLCALL>"), ("empty", "A <TOOLCALL>[]</TOOLCALL> B")),
    "jamba": battery("jamba", None, lambda calls: "<tool_calls>" + json_list(calls) + "</tool_calls>") + more(
        "jamba", ("one object", "<tool_calls>" + named("get_weather", ROME) + "</tool_calls>"), ("bad JSON", "A <tool_calls>[{oops}]</tool_calls> B"), ("on lines", "<tool_calls>[\n " + named("get_weather", ROME) + ",\n " + named("get_time", ZONE) + "\n]</tool_calls>")),
    "default": battery("default", None, lambda calls: "<TOOLCALL>" + json_list(calls) + "</TOOLCALL>") + more(
        "default", ("python tag", "<|python_tag|>" + named("get_weather", ROME, "parameters")), ("bare", named("get_weather", ROME)), ("bad JSON", "A <TOOLCALL>[{oops}]</TOOLCALL> B")),
    "pythonic": battery("pythonic", None, python_list) + more(
        "pythonic", ("negative and float", "[get_weather(city='Rome', days=-3, scale=-1.5)]"), ("double quotes", '[get_weather(city="Ro\'me")]'), ("none and true", "[get_weather(city=None, metric=True)]"), ("list and dict", "[get_weather(tags=['a', 'b'], place={'x': 1})]"),
        ("positional", "[get_weather('Rome')]"), ("no brackets", "get_weather(city='Rome')"), ("with tags", "<|python_start|>[get_weather(city='Rome')]<|python_end|>"), ("a plain list", "Numbers: [1, 2, 3]."), ("index", "see a[0] and f(x)"), ("on lines", "[get_weather(city='Rome'),\n get_time(zone='UTC')]"),
        ("brackets in a text", "[get_weather(city='a] b')]"), ("dotted name", "[api.get_weather(city='Rome')]"), ("nested call", "[get_weather(city=f('x'))]")),
    "deepseek_v3": deepseek_like("deepseek_v3", deepseek_v3, deepseek_v31),
    "deepseek_v3_1": deepseek_like("deepseek_v3_1", deepseek_v31, deepseek_v3),
    "deepseek_v3_2": dsml_like("deepseek_v3_2", "function_calls"),
    "deepseek_v4": dsml_like("deepseek_v4", "tool_calls"),
    "minimax_m2": battery("minimax_m2", None, lambda calls: "<minimax:tool_call>\n" + "".join(minimax(*c) for c in calls) + "</minimax:tool_call>") + more(
        "minimax_m2", ("no outer tag", "Hi " + minimax("get_weather", ROME) + "bye"), ("no parameter end", "<minimax:tool_call>\n" + minimax("get_weather", ROME).replace("</parameter>", "") + "</minimax:tool_call>"), ("newlines in a value", '<minimax:tool_call><invoke name="get_weather"><parameter name="city">\nRome\n</parameter></invoke></minimax:tool_call>'),
        ("empty", "A <minimax:tool_call></minimax:tool_call> B"), ("name without quotes", "<minimax:tool_call><invoke name=get_weather><parameter name=city>Rome</parameter></invoke></minimax:tool_call>")),
    "glm47": battery("glm47", glm) + more(
        "glm47", ("on lines", "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Rome</arg_value>\n</tool_call>"), ("types", "<tool_call>get_weather<arg_key>days</arg_key><arg_value>three</arg_value><arg_key>city</arg_key><arg_value>12</arg_value><arg_key>other</arg_key><arg_value>12</arg_value><arg_key>metric</arg_key><arg_value>True</arg_value><arg_key>scale</arg_key><arg_value>1.0</arg_value></tool_call>"), ("name only", "<tool_call>ping</tool_call>"), ("empty", "A <tool_call></tool_call> B"), ("text value of a number", "<tool_call>get_weather\n<arg_key>days</arg_key>\n<arg_value>three</arg_value>\n<arg_key>city</arg_key>\n<arg_value>12</arg_value>\n</tool_call>"),
        ("no value", "<tool_call>get_weather\n<arg_key>city</arg_key>\n</tool_call>"), ("many lines", "<tool_call>get_weather<arg_key>city</arg_key><arg_value>a\n b</arg_value></tool_call>")),
    "kimi_k2": battery("kimi_k2", None, kimi) + more(
        "kimi_k2", ("singular section", kimi([("get_weather", ROME)]).replace("tool_calls_section", "tool_call_section")), ("no section", "Hi <|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{\"city\": \"Rome\"}<|tool_call_end|> bye"), ("no prefix", kimi([("get_weather", ROME)]).replace("functions.", "")),
        ("no index", kimi([("get_weather", ROME)]).replace(":0", "")), ("bad arguments", "A " + kimi([("get_weather", ROME)]).replace('"Rome"', "Rome") + " B"), ("blanks and newlines", "<|tool_calls_section_begin|>\n<|tool_call_begin|> functions.get_weather:0 <|tool_call_argument_begin|> {\"city\": \"Rome\"} <|tool_call_end|>\n<|tool_calls_section_end|>"),
        ("high index", kimi([("get_weather", ROME)]).replace(":0", ":17")), ("dotted name", kimi([("a.get_weather", ROME)])), ("empty section", "A <|tool_calls_section_begin|><|tool_calls_section_end|> B")),
    "gemma4": battery("gemma4", None, gemma) + more("gemma4", ("plain quotes", '<|tool_call>call:get_weather{city:"Rome"}<tool_call|>'), ("bare words", "<|tool_call>call:get_weather{city:Rome,days:2}<tool_call|>"), ("no call prefix", '<|tool_call>get_weather{city:<|"|>Rome<|"|>}<tool_call|>')),
}

def dsml_spaced(calls):
    def parameter(k, v):
        return f'<｜DSML｜ parameter name="{k}" string="{"true" if isinstance(v, str) else "false"}">{v if isinstance(v, str) else dumps(v)}</｜DSML｜ parameter>\n'
    return "\n\n<｜DSML｜ calls>\n" + "".join(f'<｜DSML｜ invoke name="{name}">\n' + "".join(parameter(k, v) for k, v in args.items()) + "</｜DSML｜ invoke>\n" for name, args in calls) + "</｜DSML｜ calls>"


def minimax_m3(calls):
    mark = "]<]minimax[>["
    def value(v):
        if isinstance(v, dict):
            return "".join(f"{mark}<{k}>{value(x)}{mark}</{k}>" for k, x in v.items())
        if isinstance(v, list):
            return "".join(f"{mark}<item>{value(x)}{mark}</item>" for x in v)
        return v if isinstance(v, str) else dumps(v)
    return f"{mark}<tool_call>\n" + "".join(f'{mark}<invoke name="{name}">' + "".join(f"{mark}<{k}>{value(v)}{mark}</{k}>" for k, v in args.items()) + f"{mark}</invoke>\n" for name, args in calls) + f"{mark}</tool_call>"


def kimi_k3(calls):
    kinds = {str: "string", bool: "boolean", int: "number", float: "number", list: "array", dict: "object"}
    def argument(k, v):
        return f'<|open|>argument key="{k}" type="{kinds[type(v)]}"<|sep|>{v if isinstance(v, str) else dumps(v)}<|close|>argument<|sep|>'
    return "<|open|>tools<|sep|>" + "".join(f'<|open|>call tool="{name}" index="{at + 1}"<|sep|>' + "".join(argument(k, v) for k, v in args.items()) + "<|close|>call<|sep|>" for at, (name, args) in enumerate(calls)) + "<|close|>tools<|sep|>"


def kimi_k3_cases(tool, reasoning):
    think, response = "<|open|>think<|sep|>Hm.<|close|>think<|sep|>", "<|open|>response<|sep|>I look.<|close|>response<|sep|>"
    one = kimi_k3([("get_weather", ROME)])
    json_call = lambda text: f'<|open|>tools<|sep|><|open|>call tool="get_weather" index="1"<|sep|><|open|>json<|sep|>{text}<|close|>json<|sep|><|close|>call<|sep|><|close|>tools<|sep|>'
    return battery(tool, None, kimi_k3, reasoning) + more(
        tool, ("thought, answer, call", think + response + one + "<|close|>message<|sep|>"), ("thought and answer", think + response + "<|close|>message<|sep|>"), ("thought only", think), ("open thought", think[:-10]), ("answer only", response), ("open answer", response[:-28]), ("answer without its start", "I look.<|close|>response<|sep|>" + one),
        ("thought without its start", "Hm.<|close|>think<|sep|>" + response), ("end of the message", response + "<|close|>message<|sep|><|end_of_msg|>"), ("message opened", '<|open|>message role="assistant"<|sep|>' + think + response), ("thought and call", think + one), ("call in an open thought", "<|open|>think<|sep|>Hm." + one), ("two thoughts", think + think + response), ("two answers", response + response), ("text between", think + " x " + response + " y " + one),
        ("JSON arguments", json_call('{"city": "Rome", "days": 1.0}')), ("bad JSON arguments", json_call('{"city": Rome}')), ("JSON, on lines", json_call('\n{"city": "Rome"}\n')), ("no call end", one.replace("<|close|>call<|sep|>", "")), ("no tools end", one.replace("<|close|>tools<|sep|>", "")), ("no tools start", one.replace("<|open|>tools<|sep|>", "")), ("no argument end", one.replace("<|close|>argument<|sep|>", "")), ("no index", one.replace(' index="1"', "")),
        ("no type", one.replace(' type="string"', "")), ("types that lie", kimi_k3([("get_weather", {"city": "12"})]).replace('"string"', '"number"')), ("text for a number", kimi_k3([("get_weather", {"days": 3})]).replace(">3<", ">three<")), ("null", kimi_k3([("get_weather", {"days": 3})]).replace('"number"<|sep|>3', '"null"<|sep|>null')), ("blanks in the markers", response.replace("response", " response ") + one.replace("call tool", " call tool").replace("tools", " tools ")), ("newlines in a value", kimi_k3([("get_weather", {"city": "a\n b\n"})])), ("markers in a value", kimi_k3([("get_weather", {"city": "a <|x|> <b>"})])),
        ("quotes in a name", one.replace('"get_weather"', '"get&quot;weather"')), ("tool of another order", one.replace('tool="get_weather" index="1"', 'index="1" tool="get_weather"')), ("same argument twice", one.replace("<|close|>call<|sep|>", '<|open|>argument key="city" type="string"<|sep|>Oslo<|close|>argument<|sep|><|close|>call<|sep|>')), ("text in a call", one.replace("<|close|>call<|sep|>", "x<|close|>call<|sep|>")), ("text between calls", kimi_k3([("get_weather", ROME), ("get_time", ZONE)]).replace("<|close|>call<|sep|>", "<|close|>call<|sep|>\n")), reasoning=reasoning)


def atem(calls):
    def value(v):
        return v if isinstance(v, str) else dumps(v)
    return "".join(f'<atem:invoke name="{name}">\n' + "".join(f'<atem:parameter name="{k}">{value(v)}</atem:parameter>\n' for k, v in args.items()) + "</atem:invoke>\n" for name, args in calls)


def muse(calls):
    return "<|start|>assistant to=functions<|message|>" + atem(calls) + "<|eom|>"


def muse_cases(tool, reasoning):
    thought, answer, one = " to=self<|message|>Hm.<|eom|>", "<|start|>assistant to=user<|message|>I look.<|eom|>", muse([("get_weather", ROME)])
    return battery(tool, None, muse, reasoning) + more(
        tool, ("thought, answer, call", thought + answer + one), ("thought and answer", thought + answer), ("thought only", thought), ("open thought", thought[:-7]), ("thought cut", thought[:-3]), ("answer to nobody", thought + answer.replace(" to=user", "")), ("answer only", " to=user<|message|>Hello<|eot|>"), ("answer without a header", "<|message|>Hello<|eot|>"), ("open answer", thought + answer[:-7]), ("call at once", " to=functions<|message|>" + atem([("get_weather", ROME)]) + "<|eot|>"),
        ("in a wrapper", one.replace("<atem:invoke", "<atem:function_calls>\n<atem:invoke").replace("</atem:invoke>", "</atem:invoke>\n</atem:function_calls>")), ("two thoughts", thought + "<|start|>assistant" + thought + answer), ("two answers", answer + answer), ("another recipient", " to=analysis<|message|>Hm.<|eom|>" + answer), ("call in an answer", " to=user<|message|>Hi " + atem([("get_weather", ROME)]) + "<|eot|>"), ("call in a thought", " to=self<|message|>Hm " + atem([("get_weather", ROME)]) + "<|eom|>" + answer),
        ("text beside a call", one.replace("<|message|>", "<|message|>I look. ").replace("<|eom|>", "done<|eom|>")), ("no invoke end", one.replace("</atem:invoke>\n", "")), ("no message end", one.replace("<|eom|>", "")), ("no parameter end", one.replace("</atem:parameter>", "")), ("values of the wrong types", muse([("get_weather", {"city": "12", "days": "three", "metric": "maybe", "scale": "abc", "tags": "no list"})])), ("values by their types", muse([("get_weather", {"days": " 3 ", "metric": "True", "scale": "1.0", "tags": '["a", 1]', "place": '{"x": 1}'})])),
        ("an unknown parameter", muse([("get_weather", {"other": "12", "more": '{"a": 1}'})])), ("null", muse([("get_weather", {"city": "null", "days": "null"})])), ("many lines", muse([("get_weather", {"city": "\n a\n b\n"})])), ("entities", muse([("get_weather", {"city": "a &lt; b &amp; c"})])), ("same parameter twice", one.replace("</atem:invoke>", '<atem:parameter name="city">Oslo</atem:parameter>\n</atem:invoke>')), ("text between messages", thought + " x " + answer + " y"), ("end of the turn", thought + answer.replace("<|eom|>", "<|eot|>") + answer), reasoning=reasoning)


def inkling(calls):
    return "".join('<|message_model|><|content_invoke_tool_json|>{"name": "%s", "args": %s}<|end_message|>' % (name, dumps(args)) for name, args in calls)


def inkling_cases(tool, reasoning):
    thought, answer, one = "<|content_thinking|>Hm.<|end_message|>", "<|message_model|><|content_text|>I look.<|end_message|>", inkling([("get_weather", ROME)])
    return battery(tool, None, inkling, reasoning) + more(
        tool, ("thought, answer, call", thought + answer + one + "<|content_model_end_sampling|>"), ("thought and answer", thought + answer), ("thought only", thought), ("open thought", thought[:-15]), ("thought cut", thought[:-3]), ("thought of the model", "<|message_model|>" + thought + answer), ("answer only", answer), ("answer at once", answer[len("<|message_model|>"):]), ("open answer", thought + answer[:-15]), ("two thoughts", thought + thought + answer), ("two answers", answer + answer), ("text between", thought + " x " + answer + " y "),
        ("no content mark", thought + "<|message_model|>Hello"), ("another content", "<|message_model|><|content_image|>x<|end_message|>" + answer), ("call at once", one[len("<|message_model|>"):]), ("other keys", one.replace("args", "arguments")), ("no args", one.replace(', "args": {"city": "Rome"}', "")), ("bad arguments", one.replace('"Rome"', "Rome")), ("a list", one.replace('{"name"', '[{"name"').replace("}}", "}}]")), ("spread", one.replace('{"city": "Rome"}', '{\n "city": "Rome",\n "days": 1.0}')), ("args first", one.replace('"name": "get_weather", "args": {"city": "Rome"}', '"args": {"city": "Rome"}, "name": "get_weather"')),
        ("call and answer", one + answer), ("thought and call", thought + one), ("call in a thought", "<|content_thinking|>Hm " + one + answer), ("end of sampling", answer + "<|content_model_end_sampling|>"), reasoning=reasoning)


FAMILIES["inkling"] = inkling_cases("inkling", "inkling")
FAMILIES["inkling"] += [dict(case, name=case["name"] + what, tool=tool, reasoning=reasoning) for case in FAMILIES["inkling"] for what, tool, reasoning in [(", calls alone", "inkling", None), (", thoughts alone", None, "inkling")] if case["name"] in ("one call", "text around", "plain text", "no tools", "thought, answer, call", "thought and answer", "answer only", "two calls")]
FAMILIES["muse"] = muse_cases("muse_glimmer", "muse_glimmer")
FAMILIES["muse"] += [dict(case, name=case["name"] + what, tool=tool, reasoning=reasoning) for case in FAMILIES["muse"] for what, tool, reasoning in [(", calls alone", "muse", None), (", thoughts alone", None, "muse")] if case["name"] in ("one call", "text around", "plain text", "no tools", "thought, answer, call", "thought and answer")]
FAMILIES["kimi_k3"] = kimi_k3_cases("kimi_k3", "kimi_k3")
FAMILIES["kimi_k3_alone"] = [dict(case, name=case["name"] + what, tool=tool, reasoning=reasoning) for case in FAMILIES["kimi_k3"] for what, tool, reasoning in [(", calls alone", "kimi_k3", None), (", thoughts alone", None, "kimi_k3")]
                             if case["name"] in ("one call", "text around", "plain text", "no tools", "thought, answer, call", "thought and answer", "open thought", "answer only", "thought and call", "text between")]
FAMILIES["deepseek_v41"] = battery("deepseek_v41", None, dsml_spaced, "deepseek_v41") + more(
    "deepseek_v41", ("no separator", "Hi." + dsml_spaced([("get_weather", ROME)]).lstrip()), ("no block", 'Hi <｜DSML｜ invoke name="get_weather">\n<｜DSML｜ parameter name="city" string="true">Rome</｜DSML｜ parameter>\n</｜DSML｜ invoke> bye'), ("empty block", "A" + dsml_spaced([]) + "B"),
    ("no string mark", dsml_spaced([("get_weather", {"city": "Rome", "days": 3})]).replace(' string="true"', "").replace(' string="false"', "")), ("newlines in a value", dsml_spaced([("get_weather", {"city": "a\n b\n"})])), ("bad JSON value", dsml_spaced([("get_weather", {"days": 3})]).replace(">3<", ">three<")),
    ("JSON arguments", '<｜DSML｜ calls>\n<｜DSML｜ invoke name="get_weather">\n{"city": "Rome", "days": 3}\n</｜DSML｜ invoke>\n</｜DSML｜ calls>'), ("JSON arguments, one line", '<｜DSML｜ calls><｜DSML｜ invoke name="get_weather">{"city": "Rome"}</｜DSML｜ invoke></｜DSML｜ calls>'), ("bad JSON arguments", '<｜DSML｜ calls><｜DSML｜ invoke name="get_weather">{"city": Rome}</｜DSML｜ invoke></｜DSML｜ calls>'),
    ("no blanks", dsml_block("calls")([("get_weather", ROME)])), ("form of before", dsml_block("tool_calls")([("get_weather", ROME)])), ("one good, one cut", dsml_spaced([("get_weather", ROME), ("get_time", ZONE)])[:-80]), ("almost a block", "a \n\n<｜DSML｜oops> b"), ("more in the header", dsml_spaced([("get_weather", ROME)]).replace('name="get_weather"', 'name="get_weather" id="1"')),
    ("text between invokes", dsml_spaced([("get_weather", ROME), ("get_time", ZONE)]).replace("</｜DSML｜ invoke>\n<", "</｜DSML｜ invoke>\nx\n<")), ("text before a parameter", dsml_spaced([("get_weather", ROME)]).replace('name="get_weather">\n', 'name="get_weather">\nx\n')), ("same parameter twice", dsml_spaced([("get_weather", ROME)]).replace("</｜DSML｜ invoke>", '<｜DSML｜ parameter name="city" string="true">Oslo</｜DSML｜ parameter>\n</｜DSML｜ invoke>')), reasoning="deepseek_v41")
FAMILIES["deepseek_v41"] += [dict(case, name=case["name"] + ", calls alone", reasoning=None) for case in FAMILIES["deepseek_v41"] if case["name"] in ("one call", "text around", "plain text")]
FAMILIES["minimax_m3"] = battery("minimax_m3", None, minimax_m3) + more(
    "minimax_m3", ("no outer tag", minimax_m3([("get_weather", ROME)]).replace("]<]minimax[>[<tool_call>", "").replace("]<]minimax[>[</tool_call>", "")), ("values of the wrong types", minimax_m3([("get_weather", {"city": "12", "days": "three", "metric": "maybe", "scale": "abc", "tags": "no list"})])), ("values by their types", minimax_m3([("get_weather", {"days": " 3 ", "metric": "True", "scale": "1.0", "tags": '["a", 1]', "place": '{"x": 1}'})])),
    ("an unknown parameter", minimax_m3([("get_weather", {"other": "12", "more": '{"a": 1}', "text": "hello"})])), ("null", minimax_m3([("get_weather", {"city": "null", "days": "null"})])), ("nested", minimax_m3([("get_weather", {"place": {"a": {"b": "x"}, "list": ["1", "2"]}, "tags": ["a", "b"]})])), ("entities", minimax_m3([("get_weather", {"city": "a &lt; b &amp; c"})])), ("many lines", minimax_m3([("get_weather", {"city": "\n a\n b\n"})])),
    ("same parameter twice", minimax_m3([("get_weather", ROME)]).replace("]<]minimax[>[</invoke>", "]<]minimax[>[<city>Oslo]<]minimax[>[</city>]<]minimax[>[</invoke>")), ("empty block", "A " + minimax_m3([]) + " B"), ("name without quotes", minimax_m3([("get_weather", ROME)]).replace('"get_weather"', "get_weather")), ("single quotes", minimax_m3([("get_weather", ROME)]).replace('"get_weather"', "'get_weather'")), ("empty value", minimax_m3([("get_weather", {"city": ""})])), ("blanks between", minimax_m3([("get_weather", {"city": "Rome", "days": 2})]).replace("]<]minimax[>[<", "\n]<]minimax[>[<")),
    ("no value end", minimax_m3([("get_weather", ROME)]).replace("]<]minimax[>[</city>", "")), ("no invoke end", minimax_m3([("get_weather", ROME)]).replace("]<]minimax[>[</invoke>", "")), ("plain tags", minimax_m3([("get_weather", ROME)]).replace("]<]minimax[>[", "")))

GUIDED = [
    ("required", "[" + '{"name": "get_weather", "parameters": {"city": "Rome"}}' + "]", "required"),
    ("required, two", '[{"name": "get_weather", "parameters": {"city": "Rome"}}, {"name": "get_time", "parameters": {"zone": "東京 🙂"}}]', "required"),
    ("required, on lines", '[\n  {\n    "name": "get_weather",\n    "parameters": {\n      "city": "Rome",\n      "days": 1\n    }\n  }\n]\n', "required"),
    ("required, arguments", '[{"name": "get_weather", "arguments": {"city": "Rome"}}]', "required"), ("required, one object", '{"name": "get_weather", "parameters": {"city": "Rome"}}', "required"),
    ("required, cut", '[{"name": "get_weather", "parameters": {"city": "Ro', "required"), ("required, second cut", '[{"name": "get_weather", "parameters": {"city": "Rome"}}, {"name": "get_ti', "required"), ("required, text", "I cannot do that.", "required"), ("required, empty", "[]", "required"),
    ("required, unknown tool", '[{"name": "nobody", "parameters": {}}]', "required"), ("required, text around", 'A [{"name": "get_weather", "parameters": {"city": "Rome"}}] B', "required"),
    ("named", '{"city": "Rome"}', "get_weather"), ("named, spread", '{\n "city": "Rome",\n "days": 2, "place": {"a": [1, 2, {"b": "}"}]}\n}', "get_weather"), ("named, cut", '{"city": "Ro', "get_weather"), ("named, text", "I cannot.", "get_weather"), ("named, empty object", "{}", "ping"), ("named, behind text", 'x {"city": "Rome"} y', "get_weather"),
    ("named, a whole call", '{"name": "get_weather", "arguments": {"city": "Rome"}}', "get_weather"), ("named, a list", '[{"name": "get_weather", "parameters": {"city": "Rome"}}]', "get_weather"), ("named, blanks", '  {"city":"Rome"}\n\n', "get_weather"),
]


def guided(tool, reasoning, prefix=""):
    return [dict(name=f"{tool}+{reasoning} {name}" + (" behind reasoning" if prefix else ""), tool=tool, reasoning=reasoning, text=prefix + text,
                 body={"tool_choice": choice if choice == "required" else {"type": "function", "function": {"name": choice}}}) for name, text, choice in GUIDED]


FAMILIES["guided"] = guided("hermes", None) + guided(None, None) + guided("qwen3_coder", "qwen3") + guided("hermes", "qwen3", "<think>Hm</think>\n") + guided("hermes", "deepseek_r1", "Hm</think>") + guided("mistral", "mistral") + guided("deepseek_v4", "deepseek_v4") + guided("llama3_json", None)
FAMILIES["guided"] += [
    dict(name="length", tool="hermes", reasoning=None, text=GUIDED[0][1], finish="length", body={"tool_choice": "required"}),
    dict(name="length, cut", tool="hermes", reasoning=None, text='[{"name": "get_weather", "parameters": {"city": "Ro', finish="length", body={"tool_choice": "required"}),
    dict(name="named, length, cut", tool="hermes", reasoning=None, text='{"city": "Ro', finish="length", body={"tool_choice": {"type": "function", "function": {"name": "get_weather"}}}),
]


def thinking(reasoning, start, end, tool=None):
    call = {None: "", "hermes": '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'}[tool]
    texts = [
        ("both tags", f"{start}I think.{end}Answer."), ("newlines", f"{start}\nI think.\nMore.\n{end}\n\nAnswer.\n"), ("no start", f"I think.{end}Answer."), ("no end", f"{start}I think on and on"), ("no tags", "Just an answer."), ("text before", f"Hi {start}I think.{end}Answer."),
        ("empty thought", f"{start}{end}Answer."), ("empty thought on lines", f"{start}\n\n{end}\n\nAnswer."), ("two thoughts", f"{start}One.{end}A {start}Two.{end}B"), ("started twice", f"{start}a {start}b{end}c"), ("ended twice", f"{start}a{end}b{end}c"), ("unicode", f"{start}考え 🙂 é{end}答え 🙂"),
        ("almost an end", f"{start}a {end[:-2]} b{end}c {start[:3]}"), ("ends within a tag", f"{start}abc{end[:4]}"), ("begins like a tag", f"{start[:4]} abc"), ("only a start", start), ("only an end", f"{end}"), ("angles", f"{start}a<b>c{end}d<e>f"), ("blanks at the end", f"{start}a {end} b "),
        ("a call in the thought", f"{start}maybe <tool_call>x</tool_call>{end}Answer."), ("a call behind the thought", f"{start}I think.{end}\n<tool_call>\n" + named("get_weather", ROME) + "\n</tool_call>"),
        ("a call without an end of the thought", f"{start}I think.<tool_call>\n" + named("get_weather", ROME) + "\n</tool_call>"), ("text, call and text", f"{start}I think.{end}Let me see. <tool_call>\n" + named("get_weather", ROME) + "\n</tool_call> done"),
        ("blank before", f" \n{start}I think.{end}Answer."),
    ]
    where = f"{reasoning}{' with hermes' if tool else ''}: "
    made = [dict(name=where + name, tool=tool, reasoning=reasoning, text=text, tools=tool is not None) for name, text in texts]
    both = f"{start}I think.{end}Answer."
    body = f"I think.{end}Answer."
    variations = [
        ("length in the thought", dict(text=f"{start}I think", finish="length")), ("special tokens", dict(text=both, special=True)), ("special tokens kept", dict(text=both, special=True, body={"skip_special_tokens": False})),
        ("prompt opened it", dict(text=body, body={"chat_template_kwargs": {"tail": start}})), ("prompt opened it on a line", dict(text="\n" + body, body={"chat_template_kwargs": {"tail": start + "\n"}})), ("prompt opened it, no end", dict(text="I think.", body={"chat_template_kwargs": {"tail": start + "\n"}})),
        ("prompt opened and closed it", dict(text="Answer.", body={"chat_template_kwargs": {"tail": f"{start}\n\n{end}\n\n"}})), ("prompt opened it, start again", dict(text=both, body={"chat_template_kwargs": {"tail": start}})),
        ("enable_thinking false", dict(text=both, body={"chat_template_kwargs": {"enable_thinking": False}})), ("enable_thinking false, plain", dict(text="Answer.", body={"chat_template_kwargs": {"enable_thinking": False}})), ("thinking false", dict(text=both, body={"chat_template_kwargs": {"thinking": False}})), ("thinking false, plain", dict(text="Answer.", body={"chat_template_kwargs": {"thinking": False}})),
        ("thinking_mode chat", dict(text=both, body={"chat_template_kwargs": {"thinking_mode": "chat"}})), ("force_nonempty_content", dict(text=both, body={"chat_template_kwargs": {"force_nonempty_content": True}})), ("thinking true", dict(text=body, body={"chat_template_kwargs": {"thinking": True}})), ("enable_thinking true", dict(text=both, body={"chat_template_kwargs": {"enable_thinking": True}})), ("reasoning_effort high", dict(text=both, body={"reasoning_effort": "high"})), ("reasoning_effort none", dict(text=both, body={"reasoning_effort": "none"})),
        ("behind a tool's result", dict(text=body, messages=[{"role": "user", "content": "hello"}, {"role": "assistant", "content": None, "tool_calls": [{"id": "call-1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}]}, {"role": "tool", "tool_call_id": "call-1", "content": "sunny"}])),
        ("behind a tool's result, both tags", dict(text=both, messages=[{"role": "user", "content": "hello"}, {"role": "assistant", "content": None, "tool_calls": [{"id": "call-1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}]}, {"role": "tool", "tool_call_id": "call-1", "content": "sunny"}])),
        ("json", dict(text='{"a": 1}', body={"response_format": {"type": "json_object"}})), ("json behind a thought", dict(text=start + "Hm" + end + '{"a": 1}', body={"response_format": {"type": "json_object"}})),
    ]
    for name, fields in variations:
        made.append({"name": where + name, "tool": tool, "reasoning": reasoning, "tools": tool is not None, **fields})
    return made


THINK = ("<think>", "</think>")
for group, names in {
    "reasoning_basic": ["basic", "qwen3", "deepseek_v4"],
    "reasoning_forced": ["deepseek_r1", "step3", "nemotron_nano", "nemotron_v3", "deepseek_v3_1", "deepseek_v3_2"],
    "reasoning_others": ["minimax_append_think", "minimax_m2", "kimi_k25"],
}.items():
    FAMILIES[group] = [case for name in names for case in thinking(name, *THINK)]
FAMILIES["reasoning_basic"] += thinking("qwen3", *THINK, tool="hermes")
FAMILIES["reasoning_forced"] += thinking("deepseek_r1", *THINK, tool="hermes")
FAMILIES["reasoning_others"] += thinking("kimi", "◁think▷", "◁/think▷") + thinking("mistral", "[THINK]", "[/THINK]") + thinking("granite", "Here is my thought process:", "Here is my response:") + thinking("minimax_m3", "<mm:think>", "</mm:think>")
FAMILIES["reasoning_others"] += more(None, ("granite, other words", "Here's my thought process: a Here's my response: b"), ("granite, line", "Here is my thought process:\nA\nHere is my response:\nB"), reasoning="granite")
FAMILIES["reasoning_others"] += [dict(name="gemma4: " + name, tool=None, reasoning="gemma4", text=text, special=True, tools=False) for name, text in [
    ("both", "<|channel>thought\nI think.<channel|>Answer."), ("no label", "<|channel>I think.<channel|>Answer."), ("no end", "<|channel>thought\nI think"), ("none", "Answer."), ("empty", "<|channel>thought\n<channel|>Answer.")]]
FAMILIES["reasoning_others"] += [dict(case, name=case["name"] + ", asked for", body={"chat_template_kwargs": {"enable_thinking": True}}) for case in FAMILIES["reasoning_others"] if case["name"].startswith("gemma4: ")]
FAMILIES["reasoning_others"] += [dict(case, name=case["name"] + ", asked for", body={"reasoning_effort": "high"}) for case in FAMILIES["reasoning_others"] if case["name"].startswith("mistral: ") and not case.get("body")]
FAMILIES["reasoning_forced"] += [dict(case, name=case["name"] + ", asked for", body={"chat_template_kwargs": {"thinking": True}}) for case in FAMILIES["reasoning_forced"] if case["name"].startswith("deepseek_v3_1: ") and not case.get("body")]

def together(tool, reasoning, call, opening="<think>", closing="</think>"):
    first, second = ("get_weather", ROME), ("get_time", ZONE)
    texts = [("thought and call", f"{opening}Hm.{closing}\n\n" + call([first])), ("thought, text, two calls", f"{opening}Hm.{closing}I look. " + call([first, second])), ("call in an open thought", f"{opening}Hm. " + call([first])), ("thought only", f"{opening}Hm.{closing}Fine."),
             ("thought, call, thought", f"{opening}Hm.{closing}" + call([first]) + f"{opening}More.{closing}End"), ("cut call", f"{opening}Hm.{closing}" + call([first])[:-8])]
    return [dict(name=f"{tool}+{reasoning}: {name}", tool=tool, reasoning=reasoning, text=text) for name, text in texts]


FAMILIES["together"] = (
    together("qwen3_coder", "qwen3", lambda calls: "\n".join(qwen_xml(*c) for c in calls))
    + [dict(case, body={"chat_template_kwargs": {"thinking": True}}) for case in together("deepseek_v3_1", "deepseek_v3_1", deepseek_v31)] + together("deepseek_v3_2", "deepseek_v3_2", dsml_block("function_calls")) + together("deepseek_v4", "deepseek_v4", dsml_block("tool_calls"))
    + [dict(case, body={"reasoning_effort": "high"}) for case in together("mistral", "mistral", lambda calls: "[TOOL_CALLS]" + json_list(calls), "[THINK]", "[/THINK]")] + together("kimi_k2", "kimi_k25", kimi) + together("glm47", "glm45", lambda calls: "\n".join(glm(*c) for c in calls)) + together("nemotron_deci", "nemotron_deci", lambda calls: "<TOOLCALL>" + json_list(calls) + "</TOOLCALL>")
    + together("minimax_m2", "minimax_append_think", lambda calls: "<minimax:tool_call>\n" + "".join(minimax(*c) for c in calls) + "</minimax:tool_call>") + together("minimax_m2", "minimax_m2", lambda calls: "<minimax:tool_call>\n" + "".join(minimax(*c) for c in calls) + "</minimax:tool_call>")
    + together("nemotron_nano", "nemotron_nano", lambda calls: "\n".join(qwen_xml(*c) for c in calls)) + together("hermes", "basic", lambda calls: "".join("<tool_call>" + named(*c) + "</tool_call>" for c in calls))
)

FAMILIES["together"] += together("deepseek_v41", "deepseek_v41", dsml_spaced) + together("minimax_m3", "minimax_m3", minimax_m3, "<mm:think>", "</mm:think>")

FAMILIES["names"] = [
    dict(name=f"reasoning {name}, {what}", tool=None, reasoning=name, text=text, tools=False, **({"body": {"chat_template_kwargs": args}} if args else {}))
    for name, (start, end) in {**{name: THINK for name in ["glm45", "nemotron_deci", "qwen3_coder", "glm47", "kimi_k2", "deepseek_v41", "deepseek_v3", "nemotron3", "deepseek-v4", "deepseekv4"]}, "minimax-m3": ("<mm:think>", "</mm:think>")}.items()
    for what, text, args in [("both tags", f"{start}I think.{end}Answer.", None), ("no start", f"I think.{end}Answer.", None), ("thinking true", f"I think.{end}Answer.", {"thinking": True}), ("thinking false", f"{start}I think.{end}Answer.", {"thinking": False})]
] + [
    dict(name=f"tools {name}", tool=name, reasoning=None, text="A " + text)
    for name, text in {"qwen3": "<tool_call>" + named("get_weather", ROME) + "</tool_call>", "glm45": glm("get_weather", ROME), "kimi_k25": kimi([("get_weather", ROME)]), "deepseek-v4": dsml_block("tool_calls")([("get_weather", ROME)]), "deepseekv4": dsml_block("tool_calls")([("get_weather", ROME)]), "gemma-4": gemma([("get_weather", ROME)])}.items()
] + [dict(name="gemma-4 thoughts, " + what, tool=None, reasoning="gemma-4", text="<|channel>thought\nI think.<channel|>Answer.", special=True, tools=False, body={"chat_template_kwargs": args}) for what, args in [("on", {"enable_thinking": True}), ("off", {"enable_thinking": False})]]

FAMILIES["names"] += [dict(name=f"tools {name}", tool=name, reasoning=None, text="A " + minimax_m3([("get_weather", {"city": "Rome", "tags": ["a"]})])) for name in ["minimax-m3", "minimax-m3-nom", "minimax_m3_nom"]]

# Recorded only when asked for by name: the original needs the vocabulary that it reads channels with (TIKTOKEN_ENCODINGS_BASE).
ON_REQUEST = {"harmony": harmony_cases("harmony", "gpt_oss"), "harmony_calls": harmony_cases("harmony", None), "harmony_thoughts": harmony_cases(None, "gpt_oss")}

MARKERS = [
    "<tool_call>", "</tool_call>", "<|python_tag|>", "[TOOL_CALLS]", "[/TOOL_CALLS]", "[ARGS]", "[THINK]", "[/THINK]", "<think>", "</think>", "<mm:think>", "</mm:think>", "◁think▷", "◁/think▷",
    "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>", "｜DSML｜", "<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|return|>", "<|call|>",
    "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>", "<|tool_call_begin|>", "<|tool_call_end|>", "<|tool_call_argument_begin|>", "<|tool_call>", "<tool_call|>", "<|\"|>", "<|channel>", "<channel|>", "]<]minimax[>[",
    "<|message_model|>", "<|content_text|>", "<|content_thinking|>", "<|content_invoke_tool_json|>", "<|end_message|>", "<|content_model_end_sampling|>", "<minimax:tool_call>", "</minimax:tool_call>", "<TOOLCALL>", "</TOOLCALL>", "<tool_calls>", "</tool_calls>",
]


def pairs():
    """Every pair of parsers of the corpus, each once."""
    return sorted({(case["tool"] or "", case["reasoning"] or "") for cases in [*FAMILIES.values(), *ON_REQUEST.values()] for case in cases})
