"""Runs a pipeline on the reference engine in this process, without daemon or socket."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass, field
from typing import Any

from lhama.backends.reference.engine import ReferenceEngine
from lhama.backends.reference.model import Behaviour
from lhama.daemon.prompt.output import OutputParser
from lhama.daemon.runner.answer import Answer
from lhama.daemon.runner.batcher import Batcher
from lhama.daemon.runner.emitter import Emitter
from lhama.daemon.runner.grammar import Grammar
from lhama.daemon.runner.pipeline import Cancelled, Order, Pipeline
from lhama.daemon.runner.sequence import Submission
from lhama.daemon.runner.trial import Trial
from lhama.daemon.wire import codec
from lhama.daemon.wire.messages import Done, Failed, FromRunner, Prompt, Step, TokenLogprob
from lhama.plugins.backend import Engine, LoadOptions, Sampling, StepPlan

PROMPT = Behaviour()
OPTIONS = LoadOptions(slots=4, context=512, batch=64)
GREEDY = Sampling(temperature=0)
ORDERS: tuple[Order, ...] = ("off", "host", "device")


@dataclass
class Received:
    """What one request got."""

    text: str = ""
    chunks: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    done: Done | None = None
    error: str = ""
    ends: int = 0
    ended: threading.Event = field(default_factory=threading.Event)


class Line:
    """A pipeline on its own thread, and what it sent."""

    def __init__(
        self,
        order: Order,
        behaviour: Behaviour = PROMPT,
        options: LoadOptions = OPTIONS,
        engine: Engine | None = None,
        trial: Trial | None = None,
    ) -> None:
        if order == "device":
            behaviour = Behaviour(**{**asdict(behaviour), "token_feed": "device"})
        self.engine = engine or ReferenceEngine(behaviour, options)
        self.batcher = Batcher(self.engine.limits, self.engine.tokenizer.end_tokens)
        self.pipeline = Pipeline(self.engine, self.batcher, Emitter(self._receive), order, trial)
        self.plans: list[StepPlan] = []
        self.received: dict[int, Received] = {}
        self.answers: dict[int, Answer] = {}
        self._watch_plans()
        self._thread = threading.Thread(target=self.pipeline.run, daemon=True)
        self._thread.start()

    def _watch_plans(self) -> None:
        prepare = self.engine.prepare_next

        def watched(plan: StepPlan, previous: object) -> object:
            self.plans.append(plan)
            return prepare(plan, previous)  # type: ignore[arg-type]

        self.engine.prepare_next = watched  # type: ignore[method-assign,assignment]

    def submit(self, request_id: int, text: str, **wishes: Any) -> Received:
        """Send a request; the returned record fills as its answer comes."""
        request, received = self.request(request_id, text, **wishes)
        self.pipeline.inbox.put(request)
        return received

    def request(
        self,
        request_id: int,
        text: str,
        *,
        num_predict: int = 40,
        stop: list[str] | None = None,
        sampling: Sampling = GREEDY,
        num_keep: int = 0,
        shift: bool = True,
        logprobs: int = -1,
        grammar: Grammar | None = None,
    ) -> tuple[Submission, Received]:
        """A request, and the record that fills once it is sent."""
        tokenizer = self.engine.tokenizer
        received = self.received[request_id] = Received()
        answer = Answer(request_id, tokenizer, stop or [], OutputParser(Prompt(), text))
        self.answers[request_id] = answer
        tokens = tokenizer.encode(text, add_special=True, parse_special=True)
        request = Submission(
            request_id, tokens, sampling, num_predict, num_keep, shift, logprobs, answer, grammar
        )
        return request, received

    def cancel(self, request_id: int) -> None:
        self.pipeline.inbox.put(Cancelled(request_id))

    def close(self) -> None:
        """End the pipeline; fails when it hangs."""
        self.pipeline.inbox.put(None)
        self._thread.join(10)
        assert not self._thread.is_alive(), "the pipeline hangs"
        self.engine.close()

    def _receive(self, message: FromRunner) -> None:
        codec.encode(message)  # raises what the wire cannot carry
        if isinstance(message, Failed):
            received = self.received[message.id]
            received.error = message.message
            self._end(received)
            return
        assert isinstance(message, Step)
        for delta in message.deltas:
            received = self.received[delta.id]
            received.text += delta.content
            if delta.content:
                received.chunks.append(delta.content)
            received.logprobs += delta.logprobs
            if delta.done is not None:
                received.done = delta.done
                self._end(received)

    def _end(self, received: Received) -> None:
        received.ends += 1
        received.ended.set()
