"""What is done to a conversation before a template sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from lhama.daemon.prompt.thinking import without_thinking
from lhama.daemon.wire.messages import Message

IMAGE_PLACEHOLDER = "[img]"


def system_text(messages: Sequence[Message]) -> str:
    """All system messages' texts, a blank line between them."""
    return "\n\n".join(m.content for m in messages if m.role == "system")


def last_user(messages: Sequence[Message]) -> int:
    """Where the user's newest message is; -1 without one."""
    return max((at for at, m in enumerate(messages) if m.role == "user"), default=-1)


def merged(messages: Sequence[Message]) -> list[Message]:
    """Consecutive messages of one role as one, texts joined by a blank line; tool results stay."""
    result: list[Message] = []
    for message in messages:
        last = result[-1] if result else None
        if last is None or last.role != message.role or message.role == "tool":
            result.append(message)
            continue
        result[-1] = msgspec.structs.replace(
            last,
            content=f"{last.content}\n\n{message.content}",
            images=[*last.images, *message.images],
            tool_calls=[*last.tool_calls, *message.tool_calls],
        )
    return result


def without_old_thinking(messages: Sequence[Message]) -> list[Message]:
    """Answers before the last user turn lose the ``<think>`` block in their text."""
    newest = last_user(messages)
    return [
        msgspec.structs.replace(m, content=without_thinking(m.content))
        if m.role == "assistant" and i < newest
        else m
        for i, m in enumerate(messages)
    ]


def with_image_markers(messages: Sequence[Message]) -> list[Message]:
    """Each image becomes ``[img-N]``: in place of the next ``[img]`` of its message's text, else
    in front of it. N counts through the conversation."""
    result: list[Message] = []
    number = 0
    for message in messages:
        text, front = message.content, ""
        for _ in message.images:
            marker = f"[img-{number}]"
            if IMAGE_PLACEHOLDER in text:
                text = text.replace(IMAGE_PLACEHOLDER, marker, 1)
            else:
                front += marker
            number += 1
        if message.images:
            message = msgspec.structs.replace(message, content=front + text)
        result.append(message)
    return result


def images(messages: Sequence[Message]) -> list[bytes]:
    """All that go with a conversation, in the order of their numbers."""
    return [image for message in messages for image in message.images]


def newest_that_fit(
    messages: Sequence[Message], fits: Callable[[Sequence[Message]], bool]
) -> list[Message]:
    """The conversation without its oldest messages, as many as must go; system messages and the
    last message always stay.

    One call of ``fits`` if all fit; else a binary search, since less text is fewer tokens.
    """
    if not messages or fits(messages):
        return list(messages)
    low, high = 1, len(messages) - 1  # the start lies in low..high; high is taken unchecked
    while low < high:
        middle = (low + high) // 2
        if fits(_from(messages, middle)):
            high = middle
        else:
            low = middle + 1
    return _from(messages, high)


def _from(messages: Sequence[Message], start: int) -> list[Message]:
    return [m for m in messages[:start] if m.role == "system"] + list(messages[start:])
