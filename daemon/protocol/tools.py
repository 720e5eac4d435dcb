"""Conversions between the API's messages and tools and the wire's."""

from __future__ import annotations

from typing import Any

from lhama.daemon.protocol import types
from lhama.daemon.wire import messages as wire


def message(request: types.Message) -> wire.Message:
    """A turn as the runner gets it: the role in lower case, calls flattened."""
    return wire.Message(
        role=request.role.lower(),
        content=request.content,
        thinking=request.thinking,
        images=request.images,
        tool_calls=[
            wire.ToolCall(
                name=call.function.name,
                arguments=call.function.arguments or {},
                index=call.function.index,
                id=call.id,
            )
            for call in request.tool_calls
        ],
        tool_name=request.tool_name,
        tool_call_id=request.tool_call_id,
    )


def tool(request: types.Tool) -> dict[str, Any]:
    """A tool in the key order in which templates print it, empty keys left out.

    ``properties`` stays, as ``null``, where the request had none: Go prints it so.
    """
    parameters = request.function.parameters
    return {
        "type": request.type,
        **_given(items=request.items),
        "function": {
            "name": request.function.name,
            **_given(description=request.function.description),
            "parameters": {
                "type": parameters.type,
                **({"$defs": parameters.defs} if parameters.defs is not None else {}),
                **_given(items=parameters.items, required=parameters.required),
                "properties": _properties(parameters.properties),
            },
        },
    }


def _properties(
    properties: dict[str, types.ToolProperty] | None,
) -> dict[str, dict[str, Any]] | None:
    if properties is None:
        return None
    return {name: _property(value) for name, value in properties.items()}


def _property(value: types.ToolProperty) -> dict[str, Any]:
    # One type name is printed alone, several as a list.
    kind: Any = value.type[0] if len(value.type) == 1 else value.type
    return _given(
        anyOf=[_property(option) for option in value.any_of],
        type=kind,
        items=value.items,
        description=value.description,
        enum=value.enum,
        properties=_properties(value.properties),
        required=value.required,
    )


def _given(**members: Any) -> dict[str, Any]:
    return {k: v for k, v in members.items() if v is not None and v != "" and v != []}
