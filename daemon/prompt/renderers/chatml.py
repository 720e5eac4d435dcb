"""ChatML, the turns that Qwen, Olmo, Nemotron and LFM2 share, and how Qwen's branch calls tools."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lhama.daemon.prompt.gotext import sprint
from lhama.daemon.prompt.jsontext import COMPACT, Style, marshal
from lhama.daemon.wire.messages import Message, ToolCall

START = "<|im_start|>"
END = "<|im_end|>\n"
ANSWER = f"{START}assistant\n"

_XML_CALLS = """

If you choose to call a function ONLY reply in the following format with NO suffix:

<tool_call>
<function=example_function_name>
<parameter=example_parameter_1>
value_1
</parameter>
<parameter=example_parameter_2>
This is the value for the second parameter
that can span
multiple lines
</parameter>
</function>
</tool_call>

<IMPORTANT>
Reminder:
- Function calls MUST follow the specified format: an inner <function=...></function> block must be nested within <tool_call></tool_call> XML tags
- Required parameters MUST be specified
- You may provide optional reasoning for your function call in natural language BEFORE the function call, but NOT after
- If there is no function call available, answer the question like normal with your current knowledge and do not tell the user about function calls
</IMPORTANT>"""
"""What the models that call in XML were told about it."""


def turn(role: str, text: str) -> str:
    return f"{START}{role}\n{text}{END}"


def tool_result(messages: Sequence[Message], at: int, text: str) -> str:
    """One tool's result; results that follow each other share a user's turn."""
    opening = f"{START}user" if at == 0 or messages[at - 1].role != "tool" else ""
    last = at == len(messages) - 1 or messages[at + 1].role != "tool"
    return f"{opening}\n<tool_response>\n{text}\n</tool_response>{END if last else ''}"


def last_query(messages: Sequence[Message], texts: Sequence[str]) -> int:
    """Where the newest user's turn is that is no tool's result; the last message without one."""
    for at in reversed(range(len(messages))):
        result = texts[at].startswith("<tool_response>") and texts[at].endswith("</tool_response>")
        if messages[at].role == "user" and not result:
            return at
    return len(messages) - 1


def xml_tools(listed: str) -> str:
    """The system's part about tools, each of which ``listed`` has on lines of its own."""
    told = "# Tools\n\nYou have access to the following functions:\n\n"
    return f"{told}<tools>{listed}\n</tools>{_XML_CALLS}"


def xml_call(call: ToolCall, value: Callable[[Any], str]) -> str:
    """A call; ``value`` writes an argument."""
    parameters = "".join(
        f"<parameter={name}>\n{value(given)}\n</parameter>\n"
        for name, given in call.arguments.items()
    )
    return f"<tool_call>\n<function={call.name}>\n{parameters}</function>\n</tool_call>"


def argument(value: Any, style: Style = COMPACT) -> str:
    """An argument in a call's XML: strings bare, containers as JSON."""
    if value is None:
        return "null"
    if isinstance(value, Mapping | list):
        return marshal(value, style)
    return sprint(value)
