"""Cogito v2: DeepSeek's tokens, calls in fenced JSON."""

from __future__ import annotations

from collections.abc import Sequence

from lhama.daemon.prompt.jsontext import OrderedMap, indented, marshal
from lhama.daemon.prompt.renderers.deepseek31 import ASSISTANT, BOS, END, USER
from lhama.daemon.prompt.tools import Tool
from lhama.daemon.wire.messages import Message, ToolCall

_THINK = "Enable deep thinking subroutine.\n\n"
_SYSTEM = (
    "You are Cogito, an AI assistant created by Deep Cogito, which is an AI research lab based in "
    "San Francisco."
)


def render(messages: Sequence[Message], tools: Sequence[Tool], think: bool | str | None) -> str:
    leads = bool(messages) and messages[0].role == "system"
    system, turns = (messages[0].content, messages[1:]) if leads else ("", messages)
    text = [BOS, _system(system, tools, thinks=bool(think))]
    for at, message in enumerate(turns):
        if message.role == "user":
            text.append(USER + message.content + ASSISTANT)
        elif message.role == "assistant":
            text.append(message.content + _calls(message.tool_calls) + END)
        elif message.role == "tool":
            text.append(_result(turns, at))
    known = [m.role for m in turns if m.role in ("user", "assistant", "tool")]
    if not known or known[-1] != "user":
        text.append(ASSISTANT)
    if think:
        text.append("<think>\n")
    return "".join(text)


def _system(given: str, tools: Sequence[Tool], *, thinks: bool) -> str:
    text = _THINK + _SYSTEM if thinks else _SYSTEM
    if given:
        text += f"\n\n{given}\n\n" if thinks else f"\n\n{given}"
    if tools:
        listed = (f"```json\n{indented(tool.wire, '    ')}\n```\n" for tool in tools)
        text += "\nYou have the following functions available:\n" + "".join(listed)
    return text


def _calls(calls: Sequence[ToolCall]) -> str:
    if not calls:
        return ""
    listed = "\n".join(
        f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{call.name}\n"
        f"```json\n{marshal(OrderedMap(call.arguments))}\n```<｜tool▁call▁end｜>"
        for call in calls
    )
    return f"<｜tool▁calls▁begin｜>{listed}<｜tool▁calls▁end｜>"


def _result(turns: Sequence[Message], at: int) -> str:
    """One tool's result; those that follow each other share a block."""
    first = at == 0 or turns[at - 1].role != "tool"
    last = at == len(turns) - 1 or turns[at + 1].role != "tool"
    return (
        f"{'<｜tool▁outputs▁begin｜>' if first else ''}"
        f"<｜tool▁output▁begin｜>{turns[at].content}<｜tool▁output▁end｜>"
        f"{'<｜tool▁outputs▁end｜>' if last else chr(10)}"
    )
