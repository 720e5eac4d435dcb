"""Glimmer: messages with recipients, calls in XML of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from lhama.daemon.prompt.gotext import sprint
from lhama.daemon.prompt.jsontext import SPACED_TEXT, Struct, marshal
from lhama.daemon.prompt.renderers import images
from lhama.daemon.prompt.tools import Tool
from lhama.daemon.wire.messages import Message, ToolCall

BOS = "<|begin_of_text|>"

_MESSAGE_END, _TURN_END = "<|eom|>", "<|eot|>"
_SYSTEM = "You are a helpful AI assistant."
_KNOWLEDGE_CUTOFF = "2026-01-04"
_EFFORT = re.compile("Reasoning effort|Reasoning Effort|reasoning effort|REASONING EFFORT")
_TOOLS = """\
In this environment you have access to a set of tools you can use to answer the user's question.

You can invoke a function by writing a "<atem:function_calls>" block like the following:
<atem:function_calls>
<atem:invoke name="$FUNCTION_NAME">
<atem:parameter name="$PARAMETER_NAME">$PARAMETER_VALUE</atem:parameter>
...
</atem:invoke>
</atem:function_calls>

String and scalar parameters should be specified as is, while lists and objects should use JSON \
format. Note that spaces for string values are not stripped. The output is not expected to be \
valid XML and is parsed with regular expressions.
Here are the functions available in JSONSchema format:
// Tool metadata
{namespaces}// Function schemas{functions}

Here's an example of how to call a function in the tool set:
(If the tool namespace is not specified, invoke the function directly as `example_function_name` \
rather than `example_tool_name.example_function_name`)

to=example_tool_name.example_function_name

<atem:function_calls>
<atem:invoke name="example_tool_name.example_function_name">
<atem:parameter name="example_parameter_1">value_1</atem:parameter>
<atem:parameter name="example_parameter_2">This is the value for the second parameter
that can span
"multiple" lines
</atem:parameter>
</atem:invoke>
</atem:function_calls>"""


def render(messages: Sequence[Message], tools: Sequence[Tool], think: bool | str | None) -> str:
    strength = think if isinstance(think, str) else "none" if think is False else "high"
    text = [BOS]
    if not any(message.role == "system" for message in messages):
        today = f"\nKnowledge cutoff: {_KNOWLEDGE_CUTOFF}.\nCurrent date: {date.today()}."
        text.append(_system(f"{_SYSTEM}{today}\n\nReasoning strength: {strength}.", tools))
    shown = images.texts(messages)
    for at, message in enumerate(messages):
        alike = at + 1 < len(messages) and messages[at + 1].role == message.role
        if message.role == "system":
            text.append(_system(_with_strength(shown[at], strength), tools))
        elif message.role == "user":
            text.append(_message("user", shown[at]))
        elif message.role == "tool":
            name = message.tool_name or _called(messages, message.tool_call_id)
            result = f'<tool_output name="{name}">\n{shown[at]}\n</tool_output>'
            text.append(_message(f"tool {name}", result))
        elif message.role == "assistant":
            text += _answer(message, shown[at], _MESSAGE_END if alike else _TURN_END)
    return "".join([*text, "<|start|>assistant"])


def _message(header: str, body: str, end: str = _TURN_END) -> str:
    return f"<|start|>{header}<|message|>{body}{end}"


def _answer(message: Message, said: str, end: str) -> list[str]:
    """Thinking to itself, then calls to tools or text to the user; ``end`` closes the last call."""
    parts = []
    if message.thinking:
        parts.append(_message("assistant to=self", message.thinking, _MESSAGE_END))
    ends = [_MESSAGE_END] * (len(message.tool_calls) - 1) + [end]
    parts += [
        _message(f"assistant to={call.name}", _call(call), end)
        for call, end in zip(message.tool_calls, ends, strict=False)
    ]
    if not message.tool_calls and (said or not message.thinking):
        parts.append(_message("assistant to=user", said))
    return parts


def _call(call: ToolCall) -> str:
    parameters = "".join(
        f'<atem:parameter name="{name}">{_value(value)}</atem:parameter>\n'
        for name, value in call.arguments.items()
    )
    invoke = f'<atem:invoke name="{call.name}">\n{parameters}</atem:invoke>'
    return f"<atem:function_calls>\n{invoke}\n</atem:function_calls>"


def _value(value: Any) -> str:
    if value is None:
        return "null"
    return marshal(value, SPACED_TEXT) if isinstance(value, Mapping | list) else sprint(value)


def _called(messages: Sequence[Message], call_id: str) -> str:
    """The name of the newest call with this id; the id without one."""
    names = [c.name for m in messages for c in m.tool_calls if call_id and c.id == call_id]
    return names[-1] if names else call_id


def _with_strength(system: str, strength: str) -> str:
    """The model's own word for effort, and a line about it where the text has none."""
    text = _EFFORT.sub(_strength, system)
    told = "reasoning strength" in text.lower()
    return text if told else f"{text}\n\nReasoning strength: {strength}."


def _strength(effort: re.Match[str]) -> str:
    """``strength`` in the case of the word that it replaces."""
    word = effort.group()[len("reasoning ") :]
    found = "STRENGTH" if word.isupper() else "strength"
    return effort.group()[: -len(word)] + (found.capitalize() if word.istitle() else found)


def _system(text: str, tools: Sequence[Tool]) -> str:
    """``text``, the tools, and who may be addressed."""
    namespaces = list(dict.fromkeys(tool.name.partition(".")[0] for tool in tools))
    parts = [text]
    if tools:
        listed = "".join(f"{_json(name=name, description='')}\n" for name in namespaces)
        functions = "".join(f"\n{_function(tool)}" for tool in tools)
        parts.append(_TOOLS.format(namespaces=listed, functions=functions))
    recipients = ["self", *(f"{name}.*" for name in namespaces), "user"]
    quoted = ", ".join(f'"{name}"' for name in recipients)
    parts.append(f"# Valid recipients: {quoted}.")
    return _message("system", "\n\n".join(parts))


def _function(tool: Tool) -> str:
    return _json(name=tool.name, description=tool.description, parameters=tool.parameters)


def _json(**members: Any) -> str:
    return marshal(Struct(members), SPACED_TEXT)
