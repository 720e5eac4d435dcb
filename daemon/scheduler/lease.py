"""A request's hold on a loaded model: while it lasts, the model stays."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from types import TracebackType

from lhama.daemon.scheduler.runner import R, Runner
from lhama.daemon.wire.messages import Delta, Embed, Embedded, Generate, Prompt, Render, Rendered


class Lease:
    """Async context manager; leaving it gives the model back and restarts its keep-alive."""

    def __init__(
        self, runner: Runner, context: int, load_ns: int, release: Callable[[], None]
    ) -> None:
        assert runner.loaded is not None
        self.context = context
        """Tokens a request may hold, as asked for."""
        self.slots = runner.loaded.slots
        self.load_ns = load_ns
        """Nanoseconds from asking to having it, waiting and loading included."""
        self._runner = runner
        self.release = release
        """Give the model back; leaving the context does it."""

    async def __aenter__(self) -> Lease:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, e: BaseException | None, t: TracebackType | None
    ) -> None:
        self.release()

    async def generate(self, request: Generate) -> AsyncGenerator[Delta, None]:
        """The answer, delta by delta; the last has ``done``. Closing the iterator cancels.

        Raises ``RunnerFailed`` or ``RunnerLost``.
        """
        request_id, stream = self._runner.open(request)
        finished = False
        try:
            while not finished:
                delta = await stream.get(Delta)
                finished = delta.done is not None
                yield delta
        finally:
            self._runner.close(request_id, finished=finished)

    async def render(self, prompt: Prompt) -> Rendered:
        """The prompt's text as the model would see it."""
        return await self._one(Render(0, prompt), Rendered)

    async def embed(self, inputs: list[str], truncate: bool) -> Embedded:
        """One vector an input, not normalised."""
        return await self._one(Embed(0, inputs, truncate), Embedded)

    async def _one(self, request: Render | Embed, kind: type[R]) -> R:
        request_id, stream = self._runner.open(request)
        finished = False
        try:
            reply = await stream.get(kind)
            finished = True
            return reply
        finally:
            self._runner.close(request_id, finished=finished)
