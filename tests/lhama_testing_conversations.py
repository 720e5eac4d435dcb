"""Conversations that every chat format has to write, and the tools in them."""

from __future__ import annotations

from typing import Any, NamedTuple

from lhama.daemon.wire.messages import Message, ToolCall

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tell the weather <now> of a city",
        "parameters": {
            "type": "object",
            "required": ["city"],
            "properties": {
                "city": {"type": "string", "description": "Its name"},
                "unit": {"type": "string", "enum": ["°C", "°F"]},
                "days": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
                "hours": {"type": "array", "items": {"type": "integer"}},
                "where": {
                    "type": "object",
                    "properties": {"lon": {"type": "number"}, "lat": {"type": "number"}},
                    "required": ["lon", "lat"],
                },
            },
        },
    },
}
CLOCK: dict[str, Any] = {"type": "function", "function": {"name": "clock"}}
TOOLS = [WEATHER, CLOCK]


class Conversation(NamedTuple):
    messages: list[Message]
    tools: list[dict[str, Any]] = []
    think: bool | str | None = None


SYSTEM = Message("system", " Be brief.\n")
ASKED = Message("user", "Is it <warm> in Rome & Oslo?")
CALLED = Message(
    "assistant",
    "Let me see.",
    thinking="Two cities.\n",
    tool_calls=[
        ToolCall("get_weather", {"city": "Rome", "hours": [9, 12]}, 0, "call_a"),
        ToolCall(
            "get_weather", {"city": "Oslo", "days": 1000000, "where": {"lon": 1.5}}, 1, "call_b"
        ),
    ],
)
RESULTS = [
    Message("tool", "20 °C\n", tool_name="get_weather", tool_call_id="call_a"),
    Message("tool", '{"c": -3}', tool_name="get_weather", tool_call_id="call_b"),
]
ANSWERED = Message("assistant", "Rome only.\n", thinking="20 is warm.")

CONVERSATIONS = {
    "first": Conversation([ASKED]),
    "talk": Conversation([SYSTEM, ASKED, ANSWERED, Message("user", "Sure?")], think=True),
    "talk-unthinking": Conversation(
        [SYSTEM, ASKED, ANSWERED, Message("user", "Sure?")], think=False
    ),
    "tools": Conversation([SYSTEM, ASKED], TOOLS, think=True),
    "results": Conversation([ASKED, CALLED, *RESULTS], TOOLS[1:], think=True),
    "called-before": Conversation(
        [ASKED, CALLED, *RESULTS, ANSWERED, Message("user", "And the time?")], TOOLS[1:]
    ),
    "prefill": Conversation([ASKED, Message("assistant", "Rome is")], think=True),
    "images": Conversation(
        [
            Message("user", "this", images=[b"1", b"2"]),
            Message("assistant", "A cat."),
            Message("user", "and [img]?", images=[b"3"]),
        ]
    ),
}
