"""Messages and tools from the API's form to the wire's."""

from __future__ import annotations

from typing import Any

import msgspec

from lhama.daemon.protocol import gojson, tools
from lhama.daemon.protocol.types import ChatRequest


def _chat(**members: Any) -> ChatRequest:
    return gojson.decode(msgspec.json.encode(members), ChatRequest)


def test_roles_are_lowered_and_calls_flattened() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {"b": 1, "a": [1, 2]}}}
    request = _chat(messages=[{"role": "USER", "content": "hi", "tool_calls": [call]}])
    message = tools.message(request.messages[0])
    assert message.role == "user"
    assert message.tool_calls[0].name == "f"
    assert list(message.tool_calls[0].arguments) == ["b", "a"]


def test_tools_come_in_the_order_templates_print() -> None:
    parameters = {
        "required": ["city"],
        "properties": {
            "city": {"description": "City", "type": "string"},
            "n": {"type": ["a", "b"]},
        },
        "type": "object",
        "additionalProperties": False,
    }
    function = {"parameters": parameters, "description": "Get", "name": "w", "strict": True}
    request = _chat(tools=[{"function": function, "type": "function"}])
    assert msgspec.json.encode(tools.tool(request.tools[0])).decode() == (
        '{"type":"function","function":{"name":"w","description":"Get","parameters":'
        '{"type":"object","required":["city"],"properties":{"city":{"type":"string",'
        '"description":"City"},"n":{"type":["a","b"]}}}}}'
    )


def test_absent_properties_are_null() -> None:
    request = _chat(tools=[{"type": "function", "function": {"name": "f"}}])
    parameters = tools.tool(request.tools[0])["function"]["parameters"]
    assert parameters == {"type": "", "properties": None}
