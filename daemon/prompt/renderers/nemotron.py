"""Nemotron 3 and 3.5 Nano: ChatML, tools in XML, thinking switched by the request or in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lhama.daemon.prompt.conversation import last_user
from lhama.daemon.prompt.gotext import SPACE, sprint
from lhama.daemon.prompt.jsontext import PYTHON, marshal
from lhama.daemon.prompt.renderers import chatml, images
from lhama.daemon.prompt.tools import Tool, type_names
from lhama.daemon.wire.messages import Message, ToolCall

_OPEN, _CLOSE = "<think>", "</think>"
_NO_THOUGHT = _OPEN + _CLOSE
_BRIEF = "\n\n{reasoning effort: efficient}"


def nemotron3(messages: Sequence[Message], tools: Sequence[Tool], think: bool | str | None) -> str:
    """``/think`` and ``/no_think`` in a user's or the system's text switch thinking and vanish."""
    thinks = think is None or bool(think)
    for message in messages:
        if message.role in ("user", "system"):
            if "/think" in message.content.replace(_CLOSE, ""):
                thinks = True
            elif "/no_think" in message.content:
                thinks = False
    return _render(messages, tools, thinks=thinks, older=True)


def nemotron35(messages: Sequence[Message], tools: Sequence[Tool], think: bool | str | None) -> str:
    thinks = think is None or bool(think)
    return _render(messages, tools, thinks=thinks, brief=think == "medium")


def _render(
    messages: Sequence[Message],
    tools: Sequence[Tool],
    *,
    thinks: bool,
    older: bool = False,
    brief: bool = False,
) -> str:
    leads = bool(messages) and messages[0].role == "system"
    system, turns = (messages[0].content, messages[1:]) if leads else ("", messages)
    if older:
        system = _without_toggles(system)
    told = chatml.xml_tools("".join(map(_tool, tools))) if tools else ""
    text = [chatml.turn("system", "\n\n".join(filter(None, (system, told))))]
    newest = last_user(turns)
    shown = iter(images.texts([m for m in turns if m.role in ("user", "system", "tool")]))
    for at, message in enumerate(turns):
        if message.role == "assistant":
            said = _answer(message, older=older)
            text.append(_closed(said, message.tool_calls, forget=at < newest))
        elif message.role == "tool":
            text.append(_result(turns, at, next(shown)))
        elif message.role in ("user", "system"):
            body = next(shown)
            if older:
                body = _without_toggles(body).strip(SPACE)
            text.append(
                chatml.turn(message.role, body + (_BRIEF if brief and at == newest else ""))
            )
        else:
            text.append(chatml.turn(message.role, message.content))
    text.append(chatml.ANSWER + (f"{_OPEN}\n" if thinks else _NO_THOUGHT))
    return "".join(text)


def _without_toggles(text: str) -> str:
    parts = (part.replace("/think", "").replace("/no_think", "") for part in text.split(_CLOSE))
    return _CLOSE.join(parts)


def _answer(message: Message, *, older: bool) -> str:
    """An answer's text behind its thinking, which is empty where there was none."""
    said = message.content
    if message.thinking:
        line = "\n" if older else ""
        return f"{_OPEN}\n{message.thinking}{line}{_CLOSE}{line}{said}"
    return said if _OPEN in said or _CLOSE in said else _NO_THOUGHT + said


def _closed(said: str, calls: Sequence[ToolCall], *, forget: bool) -> str:
    """The answer's turn; ``forget`` leaves its thinking out."""
    if not calls:
        if forget and _OPEN in said and _CLOSE in said:
            said = _NO_THOUGHT + said.rpartition(_CLOSE)[2]
        return chatml.turn("assistant", said.strip(SPACE))
    if forget:
        after = said.rpartition(_CLOSE)[2] if _CLOSE in said else said.partition(_OPEN)[0]
        said = _NO_THOUGHT + after.strip(SPACE)
    return chatml.turn(
        "assistant",
        said.strip(SPACE) + "\n" + "".join(f"{chatml.xml_call(c, _value)}\n" for c in calls),
    )


def _result(turns: Sequence[Message], at: int, text: str) -> str:
    opening = f"{chatml.START}user\n" if at and turns[at - 1].role != "tool" else ""
    last = at == len(turns) - 1 or turns[at + 1].role != "tool"
    body = f"<tool_response>\n{text}\n</tool_response>\n"
    return opening + body + (chatml.END if last else "")


def _value(value: Any) -> str:
    """As Python's template prints it: JSON for containers, ``True``, ``False`` and ``None``."""
    if isinstance(value, Mapping | list):
        return marshal(value, PYTHON)
    if value is None or isinstance(value, bool):
        return str(value)
    return sprint(value)


def _tool(tool: Tool) -> str:
    parts = [f"\n<function>\n<name>{tool.name}</name>"]
    if tool.description:
        parts.append(f"<description>{tool.description.strip(SPACE)}</description>")
    parts.append("<parameters>")
    parts += [_parameter(name, schema) for name, schema in tool.properties.items()]
    parts += _tagged(tool.parameters, ("$defs", "items"))
    parts += _tagged(tool.parameters, ("required",))
    parts.append("</parameters>\n</function>")
    return "\n".join(parts)


def _parameter(name: str, schema: Mapping[str, Any]) -> str:
    parts = [f"<parameter>\n<name>{name}</name>"]
    if types := type_names(schema):
        shown = types[0] if len(types) == 1 else str(types)
        parts.append(f"<type>{shown}</type>")
    if description := schema.get("description"):
        parts.append(f"<description>{description.strip(SPACE)}</description>")
    parts += _tagged(schema, ("enum", "anyOf", "items", "properties", "required"))
    return "\n".join([*parts, "</parameter>"])


def _tagged(schema: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    return [f"<{key}>{_value(schema[key])}</{key}>" for key in keys if schema.get(key) is not None]
