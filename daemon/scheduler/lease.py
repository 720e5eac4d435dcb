"""A request's hold on a loaded model: while it lasts, the model stays."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from lhama.daemon.scheduler.replies import EmbeddedReply, Reply, Sink, Vectors
from lhama.daemon.scheduler.runner import Runner
from lhama.daemon.wire.messages import Embed, Generate, Prompt, Rank, Render, Rendered


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

    async def generate(self, request: Generate, sink: Sink) -> None:
        """Hand the answer's deltas to ``sink``; the last has ``done``. Cancelling it cancels the
        request. Raises ``RunnerFailed``, ``RunnerLost`` or what the sink raises."""
        await self._runner.stream(request, sink)

    async def render(self, prompt: Prompt) -> Rendered:
        """The prompt's text as the model would see it."""
        return await self._runner.call(Render(0, prompt), Reply[Rendered]())

    async def embed(self, request: Embed | Rank) -> Vectors:
        """One vector for each text, not normalised, or the classifier's outputs. Cancelling it
        cancels the request. Raises ``RunnerFailed`` or ``RunnerLost``."""
        return await self._runner.call(request, EmbeddedReply())
