"""Qwen3-Coder: tools and calls in XML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lhama.daemon.prompt.gotext import sprint
from lhama.daemon.prompt.jsontext import SORTED, marshal
from lhama.daemon.prompt.renderers import chatml
from lhama.daemon.prompt.tools import Tool, type_names
from lhama.daemon.wire.messages import Message

DEFAULT_SYSTEM = (
    "You are Qwen, a helpful AI assistant that can interact with a computer to solve tasks."
)


def render(messages: Sequence[Message], tools: Sequence[Tool], think: bool | str | None) -> str:
    """Only the first system text that is not empty counts; a last answer stays open."""
    system = next((m.content for m in messages if m.role == "system" and m.content), "")
    turns = [m for m in messages if m.role != "system"]
    text: list[str] = []
    if system or tools:
        told = "\n\n" + chatml.xml_tools("".join(map(_tool, tools))) if tools else ""
        text.append(chatml.turn("system", (system or DEFAULT_SYSTEM) + told))
    for at, message in enumerate(turns):
        if message.role == "tool":
            text.append(chatml.tool_result(turns, at, message.content))
        elif message.role == "assistant" and message.tool_calls:
            text.append(chatml.turn("assistant", _calling(message)))
        elif message.role == "assistant" and at == len(turns) - 1:
            text.append(chatml.ANSWER + message.content)
        else:
            text.append(chatml.turn(message.role, message.content))
    if turns and turns[-1].role != "assistant":
        text.append(chatml.ANSWER)
    return "".join(text)


def _calling(message: Message) -> str:
    said = f"{message.content}\n" if message.content else ""
    calls = (chatml.xml_call(call, chatml.argument) for call in message.tool_calls)
    return said + "".join(f"\n{call}" for call in calls)


def _tool(tool: Tool) -> str:
    parts = [f"\n<function>\n<name>{tool.name}</name>"]
    if tool.description:
        parts.append(f"<description>{tool.description}</description>")
    parts.append("<parameters>")
    parts += [_parameter(name, schema) for name, schema in tool.properties.items()]
    parts += _further(tool.parameters, known=("type", "properties"))
    parts.append("</parameters>\n</function>")
    return "\n".join(parts)


def _parameter(name: str, schema: Mapping[str, Any]) -> str:
    parts = [f"<parameter>\n<name>{name}</name>"]
    if types := type_names(schema):
        parts.append(f"<type>{types[0] if len(types) == 1 else marshal(types)}</type>")
    if schema.get("description"):
        parts.append(f"<description>{schema['description']}</description>")
    parts += _further(schema, known=("type", "description"))
    return "\n".join([*parts, "</parameter>"])


def _further(schema: Mapping[str, Any], known: Iterable[str]) -> list[str]:
    """The schema's other keys, each in a tag of its name."""
    return [
        f"<{key}>{marshal(value, SORTED) if isinstance(value, Mapping | list) else sprint(value)}</{key}>"
        for key, value in schema.items()
        if key not in known
    ]
