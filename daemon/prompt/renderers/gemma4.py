"""Gemma 4. Small models (E2B, E4B) and large ones differ in how no thinking is written."""

from __future__ import annotations

from collections.abc import Sequence

from lhama.daemon.prompt.conversation import last_user
from lhama.daemon.prompt.gotext import SPACE
from lhama.daemon.prompt.renderers import images
from lhama.daemon.prompt.renderers.gemma4tools import NOTATION, declaration
from lhama.daemon.prompt.tools import Tool
from lhama.daemon.wire.messages import Message

BOS = "<bos>"

_OPEN, _CLOSE = "<|channel>", "<channel|>"
_THOUGHT = f"{_OPEN}thought\n"
_END = "<turn|>\n"


def small(messages: Sequence[Message], tools: Sequence[Tool], think: bool | str | None) -> str:
    return _render(messages, tools, think, no_thought="")


def large(messages: Sequence[Message], tools: Sequence[Tool], think: bool | str | None) -> str:
    return _render(messages, tools, think, no_thought=_THOUGHT + _CLOSE)


def _render(
    messages: Sequence[Message], tools: Sequence[Tool], think: bool | str | None, no_thought: str
) -> str:
    """Results belong to the turn of their call; answers that follow each other share a turn."""
    leads = bool(messages) and messages[0].role in ("system", "developer")
    system, turns = (messages[0].content, messages[1:]) if leads else ("", messages)
    text = [BOS]
    if leads or tools or think:
        declared = "".join(map(declaration, tools))
        thinks = "<|think|>\n" if think else ""
        text.append(f"<|turn>system\n{thinks}{system.strip(SPACE)}{declared}{_END}")
    spoken = [at for at, m in enumerate(turns) if m.role != "tool"]
    shown = _Images()
    newest = last_user(turns)
    ended = ""  # how the newest turn ended: with a "call", a "result", or otherwise
    before = ""
    for place, at in enumerate(spoken):
        message = turns[at]
        after = turns[spoken[place + 1]].role if place + 1 < len(spoken) else ""
        is_answer = message.role == "assistant"
        if not (is_answer and before == "assistant"):
            text.append(f"<|turn>{'model' if is_answer else message.role}\n")
        if is_answer and message.thinking and at > newest:
            text.append(f"{_THOUGHT}{message.thinking}\n{_CLOSE}")
        text += [f"<|tool_call>{NOTATION.call(call)}<tool_call|>" for call in message.tool_calls]
        results = _results(turns, at) if message.tool_calls else []
        text += [_result(message, result, shown(result)) for result in results]
        ended = "result" if results else "call" if message.tool_calls else ""
        body = _body(message, shown)
        text.append(body)
        said = bool(body.strip(SPACE) or message.images)
        continues = is_answer and after == "assistant" and bool(results or not message.tool_calls)
        if ended == "call":
            text.append("<|tool_response>")
        elif not continues and (said or after or not results):
            text.append(_END)
        before = message.role
    if not ended:
        text.append("<|turn>model\n" + ("" if think else no_thought))
    elif ended == "result" and think:
        text.append(_THOUGHT)
    return "".join(text)


class _Images:
    """Writes texts with markers of their images, numbered in the order of writing."""

    def __init__(self) -> None:
        self._next = 0

    def __call__(self, message: Message) -> str:
        text = images.marked(message, self._next)
        self._next += len(message.images)
        return text


def _body(message: Message, shown: _Images) -> str:
    """What was said, without thinking that stands in it."""
    text = message.content
    text = _without_thoughts(text) if message.role == "assistant" else text.strip(SPACE)
    return shown(Message(message.role, text, images=message.images))


def _without_thoughts(text: str) -> str:
    first, *rest = text.split(_OPEN)
    return "".join([first, *(part.partition(_CLOSE)[2] for part in rest)]).strip(SPACE)


def _results(turns: Sequence[Message], at: int) -> list[Message]:
    """The tool messages that follow directly."""
    end = at + 1
    while end < len(turns) and turns[end].role == "tool":
        end += 1
    return list(turns[at + 1 : end])


def _result(called: Message, result: Message, text: str) -> str:
    name = next(
        (c.name for c in called.tool_calls if result.tool_call_id and c.id == result.tool_call_id),
        result.tool_name or "unknown",
    )
    value = NOTATION.string(text)
    return f"<|tool_response>response:{name}{{value:{value}}}<tool_response|>"
