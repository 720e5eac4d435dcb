"""What a request gets back from its runner: a stream of deltas, or a reply."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from lhama.daemon.wire.messages import Delta, Embedded

Sink = Callable[[list[Delta]], Awaitable[None] | None]
"""Takes deltas as they come, never none. If it returns something, that is awaited before it gets
more: its reader is slow."""

R = TypeVar("R")

MOST_HELD = 1 << 14
"""Tokens kept for a reader that takes none, beyond what the kernel's buffers hold: an hour of reading
aloud, and 18 MB where each has twenty log-probabilities. One who lets more come together is not
reading, and holds a slot that others wait for."""


class Stream:
    """Hands an answer's deltas to a sink, straight from the socket's callback.

    No task is woken for a token: on a busy machine that costs more than everything else the
    daemon does with it. The request's own task sleeps in ``wait`` and helps a slow reader only.
    """

    def __init__(self, sink: Sink) -> None:
        self.finished = False
        """Whether the answer's end was handed over."""
        self._sink = sink
        self._held: list[Delta] = []
        self._slow: Awaitable[None] | None = None
        self._error: Exception | None = None
        self._loop = asyncio.get_running_loop()
        self._news = self._loop.create_future()
        self._waiting: asyncio.Task[object] | None = None

    def deliver(self, deltas: list[Delta]) -> None:
        """All that one read of the socket brought; the last of an answer has ``done``."""
        if self._slow is not None:
            self._held += deltas
            if len(self._held) > MOST_HELD:
                self._give_up()
            return
        self._hand_over(deltas)
        if self.finished or self._slow is not None:
            self._wake()

    def _give_up(self) -> None:
        """End the request as if its client had gone: it reads nothing."""
        self._held.clear()
        if self._waiting is not None:
            self._waiting.cancel()

    def _hand_over(self, deltas: list[Delta]) -> None:
        try:
            self._slow = self._sink(deltas)
        except Exception as error:
            self.fail(error)
        else:
            self.finished = deltas[-1].done is not None

    def fail(self, error: Exception) -> None:
        """Nothing more comes. What has come is still handed over."""
        self._error = self._error or error
        self._wake()

    def _wake(self) -> None:
        if not self._news.done():
            self._news.set_result(None)

    async def wait(self) -> None:
        """Until the end is handed over. Raises what ended the answer before, the sink's errors too."""
        self._waiting = asyncio.current_task()
        while True:
            await self._news
            self._news = self._loop.create_future()
            while self._slow is not None:
                await self._slow
                self._slow = None
                held, self._held = self._held, []
                if held:
                    self._hand_over(held)
            if self.finished:
                return
            if self._error is not None:
                raise self._error


class Reply(Generic[R]):
    """The answer to a request that does not stream."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()

    def end(self, answer: R) -> None:
        if not self._answer.done():
            self._answer.set_result(answer)

    def fail(self, error: Exception) -> None:
        if not self._answer.done():
            self._answer.set_exception(error)

    async def wait(self) -> R:
        """Raises what ended the request."""
        return await self._answer


@dataclass(frozen=True, slots=True)
class Vectors:
    """What a request's texts gave, in order."""

    vectors: list[array[float]]
    tokens: int
    """Of all texts, as they were computed."""
    truncated_tokens: int


class EmbeddedReply(Reply[Vectors]):
    """Collects what the steps of one request bring."""

    def __init__(self) -> None:
        super().__init__()
        self._vectors: list[array[float]] = []
        self._tokens = self._truncated = 0

    def add(self, step: Embedded) -> None:
        self._vectors += [array("f", vector) for vector in step.vectors]
        self._tokens += step.tokens
        self._truncated += step.truncated_tokens
        if step.done:
            self.end(Vectors(self._vectors, self._tokens, self._truncated))
