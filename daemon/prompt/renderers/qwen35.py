"""Qwen3.5, Qwen3.8 and Ornith: Qwen3-Coder's calls, images, thinking in every answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lhama.daemon.errors import LhamaError
from lhama.daemon.prompt.gotext import SPACE
from lhama.daemon.prompt.jsontext import SPACED, marshal
from lhama.daemon.prompt.renderers import chatml, images
from lhama.daemon.prompt.tools import Tool
from lhama.daemon.wire.messages import Message

_OPEN, _CLOSE = "<think>", "</think>"
_HIGH = (
    "Reasoning effort is set to xhigh. Please think carefully through the task, validate key "
    "assumptions, consider plausible alternatives, and prioritize correctness, consistency, and "
    "clarity in the final answer."
)
_LOW = (
    "Reasoning effort is set to low. Keep your thinking brief and focused, moving directly to the "
    "conclusion without unnecessary elaboration."
)
_EFFORTS = {
    None: _HIGH,
    False: "",
    True: "",
    "low": _LOW,
    "medium": "",
    "high": _HIGH,
    "max": _HIGH,
}
"""What Qwen3.8 is told; plain ``true`` is medium."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """What differs between the three."""

    always_thought: bool = False
    """Every answer has a block of thinking, also those before the last question."""
    tagged_thought: bool = True
    """Thinking may also stand in an answer's text, in tags."""
    instructed: bool = False
    """One system turn leads, all instructions folded into it; the effort of thinking is told."""


QWEN35 = Dialect()
ORNITH = Dialect(always_thought=True)
QWEN38 = Dialect(always_thought=True, tagged_thought=False, instructed=True)


def qwen35(messages: Sequence[Message], tools: Sequence[Tool], think: bool | str | None) -> str:
    return _render(QWEN35, messages, tools, think)


def ornith(messages: Sequence[Message], tools: Sequence[Tool], think: bool | str | None) -> str:
    return _render(ORNITH, messages, tools, think)


def qwen38(messages: Sequence[Message], tools: Sequence[Tool], think: bool | str | None) -> str:
    """Raises ``LhamaError`` for conversations that the model's template refuses."""
    messages = _folded(messages)
    _check(messages)
    return _render(QWEN38, messages, tools, think)


def _render(
    dialect: Dialect, messages: Sequence[Message], tools: Sequence[Tool], think: bool | str | None
) -> str:
    thinks = think is None or bool(think)
    texts = [text.strip(SPACE) for text in images.texts(messages)]
    query = chatml.last_query(messages, [images.marked(m, 0).strip(SPACE) for m in messages])
    text = [_system(dialect, messages, tools, _EFFORTS[think] if dialect.instructed else "")]
    for at, message in enumerate(messages):
        last = at == len(messages) - 1
        if message.role == "user" or (message.role == "system" and at):
            text.append(chatml.turn(message.role, texts[at]))
        elif message.role == "tool":
            text.append(chatml.tool_result(messages, at, texts[at]))
        elif message.role == "assistant":
            shown = dialect.always_thought or (thinks and at > query)
            text.append(chatml.ANSWER + _answer(dialect, message, texts[at], shown=shown))
            text.append("" if last else chatml.END)
        elif dialect.instructed and message.role != "system":
            text.append(chatml.turn(message.role, texts[at]))
    if messages and messages[-1].role != "assistant":
        text.append(chatml.ANSWER + (f"{_OPEN}\n" if thinks else f"{_OPEN}\n\n{_CLOSE}\n\n"))
    return "".join(text)


def _system(
    dialect: Dialect, messages: Sequence[Message], tools: Sequence[Tool], effort: str
) -> str:
    leads = bool(messages) and messages[0].role == "system"
    system = images.marked(messages[0], 0).strip(SPACE) if leads else ""
    if tools:
        listed = "".join(f"\n{marshal(tool.wire, SPACED)}" for tool in tools)
        parts = (effort, chatml.xml_tools(listed), system)
        return chatml.turn("system", "\n\n".join(filter(None, parts)))
    if (leads and not dialect.instructed) or effort or system:
        return chatml.turn("system", "\n\n".join(filter(None, (effort, system))))
    return ""


def _answer(dialect: Dialect, message: Message, said: str, *, shown: bool) -> str:
    thought = message.thinking.strip(SPACE) if shown else ""
    if dialect.tagged_thought and not (shown and message.thinking):
        thought, said = _split(said)
    block = f"{_OPEN}\n{thought}\n{_CLOSE}\n\n" if shown else ""
    return block + said + _calls(message, said=bool(said.strip(SPACE)))


def _split(said: str) -> tuple[str, str]:
    """Thinking that stands in the text, and what follows it."""
    before, closed, after = said.partition(_CLOSE)
    if not closed:
        return "", said
    thought = before.rpartition(_OPEN)[2]
    return thought.strip(SPACE), after.lstrip("\n")


def _calls(message: Message, *, said: bool) -> str:
    before = "\n\n" if said and message.tool_calls else ""
    return before + "\n".join(chatml.xml_call(c, chatml.argument) for c in message.tool_calls)


def _folded(messages: Sequence[Message]) -> Sequence[Message]:
    """One system message at the front with all instructions; the conversation as it was."""
    instructions = [m for m in messages if m.role in ("system", "developer")]
    for message in instructions:
        if message.images:
            raise LhamaError(f"{message.role} message cannot contain images")
    if not instructions or (len(instructions) == 1 and messages[0].role == "system"):
        return messages
    texts = [m.content.strip(SPACE) for m in instructions]
    system = Message("system", "\n\n".join(filter(None, texts)))
    return [system, *(m for m in messages if m not in instructions)]


def _check(messages: Sequence[Message]) -> None:
    if not messages:
        raise LhamaError("no messages provided")
    for message in messages:
        text = images.marked(message, 0).strip(SPACE)
        result = text.startswith("<tool_response>") and text.endswith("</tool_response>")
        if message.role == "user" and not result:
            return
    raise LhamaError("no user query found in messages")
