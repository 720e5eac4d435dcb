"""LFM2, plain and thinking: ChatML with marks for tools, calls as Python would write them."""

from __future__ import annotations

from collections.abc import Sequence

from lhama.daemon.prompt.gotext import SPACE
from lhama.daemon.prompt.jsontext import SPACED_TEXT, marshal
from lhama.daemon.prompt.renderers import chatml, images
from lhama.daemon.prompt.tools import Tool
from lhama.daemon.wire.messages import Message, ToolCall

BOS = "<|startoftext|>"

_OPEN, _CLOSE = "<think>", "</think>"
_CALLS = "<|tool_call_start|>"
_RESPONSE = "<|tool_response_start|>"


def plain(messages: Sequence[Message], tools: Sequence[Tool], think: bool | str | None) -> str:
    return _render(messages, tools, can_think=False, keep=False)


def thinking(messages: Sequence[Message], tools: Sequence[Tool], think: bool | str | None) -> str:
    return _render(messages, tools, can_think=True, keep=bool(think))


def _render(
    messages: Sequence[Message], tools: Sequence[Tool], *, can_think: bool, keep: bool
) -> str:
    """A last answer stays open. Of earlier answers only the newest shows its thinking, all of
    them with ``keep``."""
    leads = bool(messages) and messages[0].role == "system"
    system = messages[0].content if leads else ""
    if tools:
        listed = ", ".join(_tool(tool) for tool in tools)
        system += "\n" if system else ""
        system += f"List of tools: <|tool_list_start|>[{listed}]<|tool_list_end|>"
    text = [BOS, chatml.turn("system", system) if system else ""]
    start = int(leads)
    answers = [at for at in range(start, len(messages)) if messages[at].role == "assistant"]
    shown = images.texts(messages)
    for at in range(start, len(messages)):
        message, said = messages[at], shown[at]
        if message.role == "assistant":
            said = _answer(message, said, can_think=can_think)
            if not keep and at != answers[-1] and _CLOSE in said:
                said = said.rpartition(_CLOSE)[2].strip(SPACE)
        elif message.role == "tool" and _RESPONSE not in said:
            said = f"{_RESPONSE}{said}<|tool_response_end|>"
        is_open = message.role == "assistant" and at == len(messages) - 1
        text.append(f"{chatml.START}{message.role}\n{said}{'' if is_open else chatml.END}")
    if not messages or messages[-1].role != "assistant":
        text.append(chatml.ANSWER)
    return "".join(text)


def _tool(tool: Tool) -> str:
    return marshal(tool.function if tool.name else tool.wire, SPACED_TEXT)


def _answer(message: Message, said: str, *, can_think: bool) -> str:
    """Thinking, calls and text, in this order; what the text already shows is not added."""
    if message.tool_calls and _CALLS not in said:
        said = _calls(message.tool_calls) + ("\n" if said.strip(SPACE) else "") + said
    if can_think and message.thinking and _CLOSE not in said:
        said = f"{_OPEN}{message.thinking}{_CLOSE}{said}"
    return said


def _calls(calls: Sequence[ToolCall]) -> str:
    listed = []
    for call in calls:
        arguments = ",".join(
            f"{name}={marshal(call.arguments[name], SPACED_TEXT)}"
            for name in sorted(call.arguments)
        )
        listed.append(f"{call.name}({arguments})")
    return f"{_CALLS}[{','.join(listed)}]<|tool_call_end|>"
