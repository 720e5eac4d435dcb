from __future__ import annotations

import pytest

from lhama.daemon.prompt import conversation as c
from lhama.daemon.wire.messages import Message, ToolCall


def said(messages: list[Message]) -> list[tuple[str, str]]:
    return [(m.role, m.content) for m in messages]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], []),
        ([("user", "a")], [("user", "a")]),
        ([("user", "a"), ("user", "b"), ("user", "c")], [("user", "a\n\nb\n\nc")]),
        ([("user", "a"), ("assistant", "b"), ("user", "c")],) * 2,
        ([("tool", "1"), ("tool", "2")],) * 2,
        ([("system", "s"), ("system", "t"), ("user", "u")], [("system", "s\n\nt"), ("user", "u")]),
    ],
)
def test_merged(given: list[tuple[str, str]], expected: list[tuple[str, str]]) -> None:
    assert said(c.merged([Message(role, text) for role, text in given])) == expected


def test_merging_keeps_images_and_calls_and_its_input() -> None:
    call = ToolCall("f", {})
    given = [Message("assistant", "a", images=[b"1"]), Message("assistant", "b", tool_calls=[call])]
    (one,) = c.merged(given)
    assert (one.images, one.tool_calls) == ([b"1"], [call])
    assert given[0].content == "a"


@pytest.mark.parametrize("room", range(1, 22))
def test_newest_that_fit(room: int) -> None:
    """Against the plain rule: drop the oldest message, one at a time, until the rest fits."""
    roles = ["system", "user", "assistant", "user", "system"] + ["assistant", "user"] * 8
    history = [Message(role, str(i)) for i, role in enumerate(roles)]

    def plain() -> list[Message]:
        for start in range(len(history)):
            rest = [m for m in history[:start] if m.role == "system"] + history[start:]
            if len(rest) <= room:
                return rest
        return rest

    calls = 0

    def fits(some: object) -> bool:
        nonlocal calls
        calls += 1
        return len(list(some)) <= room  # type: ignore[call-overload]

    assert c.newest_that_fit(history, fits) == plain()
    assert calls <= 6
    if room >= len(history):
        assert calls == 1


def test_image_markers() -> None:
    turns = [
        Message("user", "look [img] and [img]", images=[b"a", b"b"]),
        Message("user", "here [img]", images=[b"c", b"d"]),
        Message("user", "no"),
        Message("user", "two", images=[b"e", b"f"]),
    ]
    texts = [m.content for m in c.with_image_markers(turns)]
    assert texts == ["look [img-0] and [img-1]", "[img-3]here [img-2]", "no", "[img-4][img-5]two"]
    assert len(c.images(turns)) == 6


def test_old_thinking_goes() -> None:
    turns = [
        Message("assistant", "<think>x</think>\n\na"),
        Message("user", "<think>mine</think>"),
        Message("assistant", "<think>y</think>b"),
        Message("user", "u"),
        Message("assistant", "<think>z</think>c"),
    ]
    texts = [m.content for m in c.without_old_thinking(turns)]
    assert texts == ["a", "<think>mine</think>", "b", "u", "<think>z</think>c"]
