"""Olmo 3 and 3.1, instruct and think."""

from __future__ import annotations

from collections.abc import Sequence

from lhama.daemon.prompt.jsontext import SPACED, marshal
from lhama.daemon.prompt.renderers import chatml
from lhama.daemon.prompt.tools import Tool
from lhama.daemon.wire.messages import Message, ToolCall

_HELPFUL = "You are a helpful function-calling AI assistant."
_PLAIN = "You are a helpful AI assistant."
_OLMO = (
    "You are Olmo, a helpful AI assistant built by Ai2. Your date cutoff is December 2024, and "
    "your model weights are available at https://huggingface.co/allenai."
)
_WITHOUT = "You do not currently have access to any functions."
_WITH = (
    "You are provided with function signatures within <functions></functions> XML tags. You may "
    "call one or more functions to assist with the user query. Output any function calls within "
    "<function_calls></function_calls> XML tags. Do not make assumptions about what values to "
    "plug into functions."
)


def olmo3(messages: Sequence[Message], tools: Sequence[Tool], think: bool | str | None) -> str:
    return _instruct(messages, tools, _HELPFUL)


def olmo31(messages: Sequence[Message], tools: Sequence[Tool], think: bool | str | None) -> str:
    return _instruct(messages, tools, _OLMO)


def thinking_32b(
    messages: Sequence[Message], tools: Sequence[Tool], think: bool | str | None
) -> str:
    return _think(messages, _PLAIN)


def thinking(messages: Sequence[Message], tools: Sequence[Tool], think: bool | str | None) -> str:
    return _think(messages, _OLMO)


def _instruct(messages: Sequence[Message], tools: Sequence[Tool], default: str) -> str:
    """The first system text counts; a last answer without calls stays open."""
    system = next((m.content for m in messages if m.role == "system"), None)
    functions = marshal([tool.wire for tool in tools], SPACED) if tools else ""
    if system is None:
        system = f"{default} {_WITH if tools else _WITHOUT + ' '}<functions>{functions}</functions>"
    elif tools:
        system += f"<functions>{functions}</functions>"
    text = [chatml.turn("system", system)]
    turns = [m for m in messages if m.role != "system"]
    for at, message in enumerate(turns):
        if message.role == "user":
            text.append(chatml.turn("user", message.content))
        elif message.role == "tool":
            text.append(chatml.turn("environment", message.content))
        elif message.role == "assistant":
            ends = at < len(turns) - 1 or message.tool_calls
            text.append(chatml.ANSWER + message.content + _calls(message.tool_calls))
            text.append(chatml.END if ends else "")
    last = turns[-1] if turns else Message("user")
    if last.role != "assistant" or last.tool_calls or not last.content:
        text.append(chatml.ANSWER)
    return "".join(text)


def _calls(calls: Sequence[ToolCall]) -> str:
    """Calls as Python would write them, arguments sorted, values in JSON."""
    if not calls:
        return ""
    lines = []
    for call in calls:
        names = sorted(call.arguments)
        arguments = ", ".join(f"{name}={marshal(call.arguments[name])}" for name in names)
        lines.append(f"{call.name}({arguments})")
    return "<function_calls>" + "\n".join(lines) + "</function_calls>"


def _think(messages: Sequence[Message], default: str) -> str:
    """No tools; every answer begins with thinking."""
    system = next((m.content for m in messages if m.role == "system"), None)
    told = default if system is None else f"{system} {_WITHOUT} <functions></functions>"
    turns = [m for m in messages if m.role in ("user", "assistant")]
    text = [chatml.turn("system", told), *(chatml.turn(m.role, m.content) for m in turns)]
    return "".join([*text, chatml.ANSWER, "<think>"])
