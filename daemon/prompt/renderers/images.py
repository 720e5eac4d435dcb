"""Where a message's images stand in its text."""

from __future__ import annotations

from collections.abc import Sequence

from lhama.daemon.prompt.conversation import IMAGE_PLACEHOLDER
from lhama.daemon.prompt.gotext import SPACE
from lhama.daemon.wire.messages import Message


def marked(message: Message, first: int) -> str:
    """The message's text with a marker for each image, numbered from ``first``.

    Markers take the places of ``[img]``; the rest stand in front, a space behind them. A text that
    numbers its images itself stays as it is.
    """
    text = message.content
    if not message.images or "[img-" in text:
        return text
    front = ""
    for number in range(first, first + len(message.images)):
        marker = f"[img-{number}]"
        if IMAGE_PLACEHOLDER in text:
            text = text.replace(IMAGE_PLACEHOLDER, marker, 1)
        else:
            front += marker
    space = " " if front and text and text[0] not in SPACE else ""
    return front + space + text


def texts(messages: Sequence[Message]) -> list[str]:
    """All messages' texts; images are numbered through the conversation."""
    result: list[str] = []
    first = 0
    for message in messages:
        result.append(marked(message, first))
        first += len(message.images)
    return result
