"""FunctionGemma."""

from __future__ import annotations

from collections.abc import Sequence

from lhama.daemon.prompt.gotext import SPACE
from lhama.daemon.prompt.renderers.bracketed import Notation
from lhama.daemon.prompt.tools import Tool, type_names
from lhama.daemon.wire.messages import Message

BOS = "<bos>"

_NOTATION = Notation("<escape>", null="<nil>")
_DEFAULT = "You can do function calling with the following functions:"
_END = "<end_of_turn>\n"
_RESPONSES = "<start_function_response>"


def render(messages: Sequence[Message], tools: Sequence[Tool], think: bool | str | None) -> str:
    """Results and what follows them belong to the turn of the call."""
    leads = bool(messages) and messages[0].role in ("system", "developer")
    system, turns = (messages[0].content, messages[1:]) if leads else ("", messages)
    text = [BOS, _developer(system, tools) if system or tools else ""]
    state = ""  # "called" inside a turn that waits for results, "answered" behind results
    for at, message in enumerate(turns):
        if message.role == "tool":
            response = _NOTATION.value(message.content)
            text.append("" if state == "called" else _RESPONSES)
            text.append(f"response:{_called(turns, at)}{{{response}}}<end_function_response>")
            state = "answered"
            continue
        role = "model" if message.role == "assistant" else message.role
        if state != "answered" or message.role not in ("assistant", "user"):
            text.append(f"<start_of_turn>{role}\n")
        text.append(message.content.strip(SPACE))
        if message.role in ("assistant", "user"):
            state = ""
        calls = message.tool_calls if message.role == "assistant" else []
        text += [f"<start_function_call>{_NOTATION.call(c)}<end_function_call>" for c in calls]
        if calls and at + 1 < len(turns) and turns[at + 1].role == "tool":
            text.append(_RESPONSES)
            state = "called"
        else:
            text.append(_END)
    if state != "answered":
        text.append("<start_of_turn>model\n")
    return "".join(text)


def _developer(system: str, tools: Sequence[Tool]) -> str:
    text = system.strip(SPACE)
    if tools:
        text += "\n" if system else ""
        text += "" if system.strip(SPACE) == _DEFAULT else _DEFAULT
    declared = "".join(map(_declaration, tools))
    return f"<start_of_turn>developer\n{text}{declared}{_END}"


def _declaration(tool: Tool) -> str:
    string = _NOTATION.string
    properties = []
    for name, schema in sorted(tool.properties.items()):
        kinds = [f",type:{string(kind.upper())}" for kind in type_names(schema)[:1]]
        text = string(schema.get("description", ""))
        properties.append(f"{name}:{{description:{text}{''.join(kinds)}}}")
    body = _NOTATION.declaration(tool, ",".join(properties))
    return f"<start_function_declaration>{body}<end_function_declaration>"


def _called(turns: Sequence[Message], at: int) -> str:
    """The function whose result stands at ``at``: results come in the order of the calls."""
    results = 0
    for before in reversed(turns[:at]):
        if before.role == "assistant" and before.tool_calls:
            calls = before.tool_calls
            return calls[results].name if results < len(calls) else ""
        results += before.role == "tool"
    return ""
