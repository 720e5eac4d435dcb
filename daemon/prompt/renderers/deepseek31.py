"""DeepSeek V3.1."""

from __future__ import annotations

from collections.abc import Sequence

from lhama.daemon.prompt.conversation import last_user, system_text
from lhama.daemon.prompt.jsontext import OrderedMap, marshal
from lhama.daemon.prompt.tools import Tool
from lhama.daemon.wire.messages import Message

BOS = "<｜begin▁of▁sentence｜>"
END = "<｜end▁of▁sentence｜>"
USER, ASSISTANT = "<｜User｜>", "<｜Assistant｜>"

_USAGE = """
IMPORTANT: ALWAYS adhere to this exact format for tool use:
<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>tool_call_name<｜tool▁sep｜>tool_call_arguments\
<｜tool▁call▁end｜>{{additional_tool_calls}}<｜tool▁calls▁end｜>

Where:

- `tool_call_name` must be an exact match to one of the available tools
- `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters Schema
- For multiple tool calls, chain them directly without separators or spaces
"""


def render(messages: Sequence[Message], tools: Sequence[Tool], think: bool | str | None) -> str:
    """All system texts lead; an answer that follows a user's turn says whether it thought."""
    text = [BOS, system_text(messages), _tools(tools) if tools else ""]
    newest = last_user(messages)
    before = ""
    for at, message in enumerate(messages):
        if message.role == "user":
            text.append(USER + message.content)
        elif message.role == "tool":
            text.append(f"<｜tool▁output▁begin｜>{message.content}<｜tool▁output▁end｜>")
        elif message.role == "assistant":
            if before == "user":
                thought = bool(message.thinking and think) and at > newest
                calls = bool(message.tool_calls)
                text.append(ASSISTANT + ("<think>" if thought and not calls else "</think>"))
            text.append(_answer(message, after_tool=before == "tool") + END)
        if message.role in ("user", "assistant", "tool"):
            before = message.role
    if before == "user":
        text.append(ASSISTANT + ("<think>" if think else "</think>"))
    return "".join(text)


def _answer(message: Message, *, after_tool: bool) -> str:
    if message.tool_calls:
        calls = "".join(
            f"<｜tool▁call▁begin｜>{call.name}<｜tool▁sep｜>"
            f"{marshal(OrderedMap(call.arguments))}<｜tool▁call▁end｜>"
            for call in message.tool_calls
        )
        return f"{message.content}<｜tool▁calls▁begin｜>{calls}<｜tool▁calls▁end｜>"
    if after_tool or "</think>" not in message.content:
        return message.content
    return message.content.partition("</think>")[2]


def _tools(tools: Sequence[Tool]) -> str:
    listed = "".join(
        f"\n### {tool.name}\nDescription: {tool.description}\n\n"
        f"Parameters: {marshal(tool.parameters)}\n"
        for tool in tools
    )
    return f"\n\n## Tools\nYou have access to the following tools:\n{listed}{_USAGE}"
