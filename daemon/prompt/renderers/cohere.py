"""Cohere's North and Command A (2026)."""

from __future__ import annotations

from collections.abc import Sequence

from lhama.daemon.prompt.jsontext import SPACED, OrderedMap, Struct, marshal
from lhama.daemon.prompt.tools import Tool
from lhama.daemon.wire.messages import Message, ToolCall

BOS = "<BOS_TOKEN>"

_SYSTEM = "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>"
_USER = "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>"
_CHATBOT = "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"
_END = "<|END_OF_TURN_TOKEN|>"
# White space that the template's own indentation leaves in the prompt.
_BEFORE_CALLS = "\n            \n                "
_RESULT = """
    {{
        "tool_call_id": "{number}",
        "results": {{

            \n            "0": {result}

        }},
        "is_error": null
    }}"""


def render(messages: Sequence[Message], tools: Sequence[Tool], think: bool | str | None) -> str:
    """Calls are numbered through the conversation; a last answer without calls stays open."""
    leads = bool(messages) and messages[0].role == "system"
    system, turns = (messages[0].content, messages[1:]) if leads else ("", messages)
    before = f"{system}\n\n\n\n" if system else ""
    text = [_SYSTEM + _said(before + _tools(tools)) + _END]
    numbers: dict[str, str] = {}
    called = 0
    for at, message in enumerate(turns):
        if message.role == "system":
            text.append(_SYSTEM + _said(message.content) + _END)
        elif message.role == "user":
            text.append(_USER + _said(message.content) + _END)
        elif message.role == "tool":
            text.append(_result(turns, at, numbers))
        elif message.role in ("assistant", "chatbot"):
            text.append(_CHATBOT + (_BEFORE_CALLS if message.tool_calls else ""))
            if message.thinking:
                text.append(f"<|START_THINKING|>{message.thinking}<|END_THINKING|>")
            if message.tool_calls:
                text.append(_calls(message.tool_calls, called) + _END)
                for number, call in enumerate(message.tool_calls, called):
                    if call.id:
                        numbers.setdefault(call.id, str(number))
                called += len(message.tool_calls)
            elif at < len(turns) - 1:
                text.append(_said(message.content) + _END)
            else:
                return "".join([*text, "<|START_TEXT|>", message.content])
    reasons = think is None or bool(think)
    text.append(_CHATBOT + "<|START_THINKING|>" + ("" if reasons else "<|END_THINKING|>"))
    return "".join(text)


def _said(text: str) -> str:
    return f"<|START_TEXT|>{text}<|END_TEXT|>"


def _tools(tools: Sequence[Tool]) -> str:
    listed = ",\n\n".join(f"\n    {_tool(tool)}" for tool in tools)
    return f"# Available Tools\n```json\n[\n{listed}\n\n\n]\n```"


def _tool(tool: Tool) -> str:
    declared = Struct(
        name=tool.name, description=tool.description, parameters=tool.parameters, responses=None
    )
    return marshal(declared, SPACED)


def _calls(calls: Sequence[ToolCall], first: int) -> str:
    listed = ",".join(
        f'\n\n    {{"tool_call_id": "{number}", "tool_name": "{call.name}", '
        f'"parameters": {marshal(OrderedMap(call.arguments), SPACED)}}}'
        for number, call in enumerate(calls, first)
    )
    return f"<|START_ACTION|>[{listed}\n\n]<|END_ACTION|>"


def _result(turns: Sequence[Message], at: int, numbers: dict[str, str]) -> str:
    """One tool's result under its call's number; results that follow each other share a list."""
    message = turns[at]
    first = at == 0 or turns[at - 1].role != "tool"
    last = at == len(turns) - 1 or turns[at + 1].role != "tool"
    result = _RESULT.format(
        number=numbers.get(message.tool_call_id, message.tool_call_id),
        result=marshal({"content": message.content}, SPACED),
    )
    opening = f"{_SYSTEM}<|START_TOOL_RESULT|>[" if first else ","
    return opening + result + (f"\n\n]<|END_TOOL_RESULT|>{_END}" if last else "")
