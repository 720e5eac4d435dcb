"""One answer's deltas from the runner: in one pass, or thoughts first and then what is constrained."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from lhama.daemon.protocol.options import Options
from lhama.daemon.protocol.types import ChatRequest, GenerateRequest
from lhama.daemon.scheduler import Lease
from lhama.daemon.web import prompts
from lhama.daemon.wire import messages as wire


class Generation:
    """The deltas of one answer, in one pass or two; iterate once."""

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

    async def deltas(self) -> AsyncGenerator[wire.Delta, None]:
        grammar = prompts.grammar(bytes(self._grammar))
        if grammar and self._think_first:
            async with aclosing(self._think_then_answer(grammar)) as deltas:
                async for delta in deltas:
                    yield delta
            return
        self._request.grammar = grammar
        async with aclosing(self._lease.generate(self._request)) as deltas:
            async for delta in deltas:
                yield delta

    async def _think_then_answer(self, grammar: str) -> AsyncGenerator[wire.Delta, None]:
        """Thoughts are free, the answer is constrained: a second pass makes it, knowing them."""
        thoughts = ""
        async with aclosing(self._lease.generate(self._request)) as deltas:
            async for delta in deltas:
                thoughts += delta.thinking
                if delta.content:
                    delta = wire.Delta(delta.id, thinking=delta.thinking)
                    break
                yield delta
            else:
                return
        if delta.thinking:
            yield delta
        second = wire.Message(role="assistant", thinking=thoughts)
        self._prompt.messages = [*self._prompt.messages, *([second] if thoughts else [])]
        self._request.grammar = grammar
        async with aclosing(self._lease.generate(self._request)) as deltas:
            async for delta in deltas:
                yield delta
