"""One answer's deltas from the runner: in one pass, or thoughts first and then what is constrained."""

from __future__ import annotations

from collections.abc import Awaitable

from lhama.daemon.protocol.options import Options
from lhama.daemon.protocol.types import ChatRequest, GenerateRequest
from lhama.daemon.scheduler import Lease, Sink
from lhama.daemon.web import prompts
from lhama.daemon.wire import messages as wire


class Generation:
    """One answer, in one pass or two; run once."""

    def __init__(
        self,
        lease: Lease,
        prompt: wire.Prompt,
        chosen: Options,
        body: GenerateRequest | ChatRequest,
        *,
        want_context: bool = False,
        think_first: bool = False,
    ) -> None:
        self._lease = lease
        self._prompt = prompt
        self._grammar = body.format
        self._think_first = think_first
        self._request = wire.Generate(
            id=0,
            prompt=prompt,
            sampling=chosen.sampling(),
            stop=list(chosen.stop),
            num_predict=chosen.bounded_predict(lease.context),
            num_keep=chosen.num_keep,
            shift=body.shift is not False,
            logprobs=body.top_logprobs if body.logprobs else -1,
            want_context=want_context,
        )

    async def run(self, sink: Sink) -> None:
        """Hand the answer's deltas to ``sink``; the last has ``done``. Raises ``LhamaError``."""
        grammar = prompts.grammar(bytes(self._grammar))
        if grammar and self._think_first:
            thoughts = await self._think(sink)
            if thoughts is None:
                return
            second = wire.Message(role="assistant", thinking=thoughts)
            self._prompt.messages = [*self._prompt.messages, *([second] if thoughts else [])]
        self._request.grammar = grammar
        self._prompt.answering = bool(grammar)
        await self._lease.generate(self._request, sink)

    async def _think(self, sink: Sink) -> str | None:
        """Thoughts are free, the answer is constrained: a first pass, given up at its first word.

        Returns its thoughts, which the second pass knows; ``None`` if it never came to an answer.
        """
        thoughts: list[str] = []

        def thinking(deltas: list[wire.Delta]) -> Awaitable[None] | None:
            now = "".join(delta.thinking for delta in deltas)
            thoughts.append(now)
            if any(delta.content for delta in deltas):
                raise _Answering(now)
            return sink(deltas)

        try:
            await self._lease.generate(self._request, thinking)
        except _Answering as end:
            slow = sink([wire.Delta(0, thinking=end.thinking)]) if end.thinking else None
            if slow is not None:
                await slow
            return "".join(thoughts)
        return None


class _Answering(Exception):
    """The first pass has come to its answer; with the last of its thoughts."""

    def __init__(self, thinking: str) -> None:
        self.thinking = thinking
