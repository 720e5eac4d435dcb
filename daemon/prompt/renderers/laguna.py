"""Poolside's Laguna, and the later format ``poolside-v1``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lhama.daemon.prompt.gotext import SPACE
from lhama.daemon.prompt.jsontext import SPACED, marshal
from lhama.daemon.prompt.tools import Tool
from lhama.daemon.wire.messages import Message, ToolCall

BOS = "〈|EOS|〉"

_OPEN, _CLOSE = "<think>", "</think>"
_SYSTEM = (
    "You are a helpful, conversationally-fluent assistant made by Poolside. You are here to be "
    "helpful to users through natural language conversations."
)
_TOOLS = """\
### Tools

You may call functions to assist with the user query.
All available function signatures are listed below:
<available_tools>
{listed}</available_tools>"""
_EACH_CALL = (
    "For each function call, return an unescaped XML-like object with function name and arguments "
    "within '<tool_call>' and '</tool_call>' tags, like here:\n"
)
_THINKING = "Wrap your thinking in '<think>', '</think>' tags, followed by a function call. "
_EXAMPLE_THOUGHT = "<think> your thoughts here </think>\n"
_EXAMPLE = (
    "<tool_call>function-name\n<arg_key>argument-key</arg_key>\n"
    "<arg_value>value-of-argument-key</arg_value>\n</tool_call>"
)


def laguna(messages: Sequence[Message], tools: Sequence[Tool], think: bool | str | None) -> str:
    """A last answer stays open if there is anything in it."""
    system, turns = _led(messages)
    text = [BOS, _header(system, tools, thinks=bool(think))]
    for at, message in enumerate(turns):
        if message.role in ("user", "system"):
            text.append(f"<{message.role}>\n{message.content}\n</{message.role}>\n")
        elif message.role == "tool":
            text.append(f"<tool_response>\n{message.content}\n</tool_response>\n")
        elif message.role == "assistant":
            thought, said = _split(message)
            text.append(f"<assistant>\n{_OPEN}\n{thought}\n" if thought else "<assistant>\n")
            text.append(f"{_CLOSE}\n{said}\n" if said else f"{_CLOSE}\n")
            text += [_call(call, line="\n") + "\n" for call in message.tool_calls]
            is_open = at == len(turns) - 1 and (thought or said or message.tool_calls)
            text.append("" if is_open else "</assistant>\n")
    if not messages or messages[-1].role != "assistant":
        text.append("<assistant>\n" + (_OPEN if think else _CLOSE))
    return "".join(text)


def poolside(messages: Sequence[Message], tools: Sequence[Tool], think: bool | str | None) -> str:
    system, turns = _led(messages)
    text = [BOS]
    if system or tools or think:
        parts = (system, _listed(tools) if tools else "")
        text.append("<system>" + "\n\n".join(filter(None, parts)) + "</system>\n")
    for message in turns:
        if message.role in ("user", "system"):
            text.append(f"<{message.role}>{message.content}</{message.role}>\n")
        elif message.role == "tool":
            text.append(f"<tool_response>{message.content}</tool_response>\n")
        elif message.role == "assistant":
            thought = f"{_OPEN}{message.thinking}" if think else ""
            calls = "".join(_call(call, line="") for call in message.tool_calls)
            text.append(f"<assistant>{thought}{_CLOSE}{message.content}{calls}</assistant>\n")
    return "".join([*text, "<assistant>", _OPEN if think else _CLOSE])


def _led(messages: Sequence[Message]) -> tuple[str, Sequence[Message]]:
    """The system's text, empty if blank, and the turns after it."""
    leads = bool(messages) and messages[0].role == "system"
    system, turns = (messages[0].content, messages[1:]) if leads else (_SYSTEM, messages)
    return system.rstrip(SPACE), turns


def _header(system: str, tools: Sequence[Tool], *, thinks: bool) -> str:
    if not (system or tools):
        return ""
    usage = ""
    if tools:
        usage = f"\n\n{_listed(tools)}\n\n{_THINKING if thinks else ''}{_EACH_CALL}"
        usage += f"{_EXAMPLE_THOUGHT if thinks else ''}{_EXAMPLE}"
    before = f"\n{system}" if system else ""
    return f"<system>\n{before}{usage}\n</system>\n"


def _listed(tools: Sequence[Tool]) -> str:
    return _TOOLS.format(listed="".join(f"{marshal(tool.wire, SPACED)}\n" for tool in tools))


def _split(message: Message) -> tuple[str, str]:
    """An answer's thinking, which may also stand in its text, and the rest."""
    thought, said = message.thinking, message.content
    if _CLOSE in said:
        first, *_, last = said.split(_CLOSE)
        said = last
        thought = thought or first.rpartition(_OPEN)[2]
    return thought.strip(SPACE), said.strip(SPACE)


def _call(call: ToolCall, line: str) -> str:
    """``line``: what ends the name and every tag."""
    pairs = "".join(
        f"<arg_key>{name}</arg_key>{line}<arg_value>{_value(value)}</arg_value>{line}"
        for name, value in call.arguments.items()
    )
    return f"<tool_call>{call.name}{line}{pairs}</tool_call>"


def _value(value: Any) -> str:
    return value if isinstance(value, str) else marshal(value, SPACED)
