"""Qwen3-VL, instruct and thinking: images, tools and calls in JSON."""

from __future__ import annotations

from collections.abc import Sequence

from lhama.daemon.prompt.jsontext import SPACED, OrderedMap, marshal
from lhama.daemon.prompt.renderers import chatml, images
from lhama.daemon.prompt.tools import Tool
from lhama.daemon.wire.messages import Message, ToolCall

_TOOLS = """\
# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>{listed}
</tools>

For each function call, return a json object with function name and arguments within \
<tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""


def instruct(messages: Sequence[Message], tools: Sequence[Tool], think: bool | str | None) -> str:
    return _render(messages, tools, thinks=bool(think))


def thinking(messages: Sequence[Message], tools: Sequence[Tool], think: bool | str | None) -> str:
    return _render(messages, tools, thinks=think is None or bool(think))


def _render(messages: Sequence[Message], tools: Sequence[Tool], *, thinks: bool) -> str:
    texts = images.texts(messages)
    query = chatml.last_query(messages, [images.marked(m, 0) for m in messages])
    text = [_system(messages, tools)]
    for at, message in enumerate(messages):
        last = at == len(messages) - 1
        if message.role == "user" or (message.role == "system" and at):
            text.append(chatml.turn(message.role, texts[at]))
        elif message.role == "tool":
            text.append(chatml.tool_result(messages, at, texts[at]))
        elif message.role == "assistant":
            thought = message.thinking if thinks and at > query else ""
            shown = thinks and at > query and (last or bool(thought))
            text.append(chatml.ANSWER + (_thought(thought, texts[at]) if shown else texts[at]))
            text.append(_calls(message, said=bool(texts[at])))
            text.append("" if last else chatml.END)
    if messages and messages[-1].role != "assistant":
        text.append(chatml.ANSWER + ("<think>\n" if thinks else ""))
    return "".join(text)


def _system(messages: Sequence[Message], tools: Sequence[Tool]) -> str:
    first = messages[0].content if messages and messages[0].role == "system" else None
    if not tools:
        return "" if first is None else chatml.turn("system", first)
    listed = "".join(f"\n{marshal(tool.wire, SPACED)}" for tool in tools)
    before = "" if first is None else f"{first}\n\n"
    return chatml.turn("system", before + _TOOLS.format(listed=listed))


def _thought(thought: str, said: str) -> str:
    """A block of thinking, which stays open where nothing was said after it."""
    after = "\n</think>\n\n" + said.lstrip("\n") if said else ""
    return "<think>\n" + thought.strip("\n") + after


def _calls(message: Message, *, said: bool) -> str:
    parts = [("\n" if said or at else "") + _call(c) for at, c in enumerate(message.tool_calls)]
    return "".join(parts)


def _call(call: ToolCall) -> str:
    arguments = marshal(OrderedMap(call.arguments), SPACED)
    return f'<tool_call>\n{{"name": "{call.name}", "arguments": {arguments}}}\n</tool_call>'
