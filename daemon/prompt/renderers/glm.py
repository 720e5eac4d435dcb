"""GLM-4.7 and GLM-OCR: calls as pairs of keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lhama.daemon.prompt.gotext import SPACE
from lhama.daemon.prompt.jsontext import SPACED, marshal
from lhama.daemon.prompt.renderers import images
from lhama.daemon.prompt.tools import Tool
from lhama.daemon.wire.messages import Message, ToolCall

_START = "[gMASK]<sop>"
_TOOLS = """\
<|system|>
# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{listed}</tools>

For each function call, output the function name and arguments within the following XML format:
<tool_call>{{function-name}}<arg_key>{{arg-key-1}}</arg_key><arg_value>{{arg-value-1}}</arg_value>\
<arg_key>{{arg-key-2}}</arg_key><arg_value>{{arg-value-2}}</arg_value>...</tool_call>"""


def glm47(messages: Sequence[Message], tools: Sequence[Tool], think: bool | str | None) -> str:
    """Thinks unless told not to; thoughts of earlier answers are shown."""
    text = [_START, _tools(tools)]
    for at, message in enumerate(messages):
        if message.role in ("user", "system"):
            text.append(f"<|{message.role}|>{message.content}")
        elif message.role == "assistant":
            thought = f"<think>{message.thinking}" if message.thinking else ""
            calls = "".join(map(_call, message.tool_calls))
            text.append(f"<|assistant|>{thought}</think>{message.content}{calls}")
        elif message.role == "tool":
            text.append(_observation(messages, at))
            text.append(f"<tool_response>{message.content}</tool_response>")
    thinks = think is None or bool(think)
    return "".join([*text, "<|assistant|>", "<think>" if thinks else "</think>"])


def glm_ocr(messages: Sequence[Message], tools: Sequence[Tool], think: bool | str | None) -> str:
    """Thinks unless told not to, which the user's turns say too. Images stand in turns of users
    and tools."""
    silent = think is not None and not think
    shown = iter(images.texts([m for m in messages if m.role in ("user", "tool")]))
    text = [_START, _tools(tools)]
    for at, message in enumerate(messages):
        if message.role == "user":
            told = silent and not message.content.endswith("/nothink")
            text.append(f"<|user|>\n{next(shown)}{'/nothink' if told else ''}")
        elif message.role == "assistant":
            said = f"\n{message.content.strip(SPACE)}" if message.content else ""
            calls = "".join(f"\n{_call(call)}" for call in message.tool_calls)
            thought = message.thinking.strip(SPACE)
            text.append(f"<|assistant|>\n<think>{thought}</think>{said}{calls}\n")
        elif message.role == "tool":
            text.append(_observation(messages, at))
            text.append(f"\n<tool_response>\n{next(shown)}\n</tool_response>\n")
        elif message.role == "system":
            text.append(f"<|system|>\n{message.content}\n")
    return "".join([*text, "<|assistant|>\n", "<think></think>\n" if silent else ""])


def _tools(tools: Sequence[Tool]) -> str:
    listed = "".join(f"{marshal(tool.wire, SPACED)}\n" for tool in tools)
    return _TOOLS.format(listed=listed) if tools else ""


def _observation(messages: Sequence[Message], at: int) -> str:
    return "<|observation|>" if at == 0 or messages[at - 1].role != "tool" else ""


def _call(call: ToolCall) -> str:
    pairs = "".join(
        f"<arg_key>{key}</arg_key><arg_value>{_value(value)}</arg_value>"
        for key, value in call.arguments.items()
    )
    return f"<tool_call>{call.name}{pairs}</tool_call>"


def _value(value: Any) -> str:
    return value if isinstance(value, str) else marshal(value)
