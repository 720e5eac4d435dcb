"""Answers the daemon: turns requests into submissions, and everything else into replies.

Runs on the reader thread. Templates, tokenizers and grammars work here, beside the pipeline's
thread and away from the daemon.
"""

from __future__ import annotations

import socket
import threading
import traceback
from collections.abc import Callable

from lhama.daemon.errors import LhamaError, RunnerFailed
from lhama.daemon.prompt.build import ModelFacts, build, encode, render
from lhama.daemon.prompt.output import OutputParser
from lhama.daemon.runner.answer import Answer
from lhama.daemon.runner.embedding import embed
from lhama.daemon.runner.grammar import Grammars
from lhama.daemon.runner.pipeline import Cancelled, Job, Pipeline
from lhama.daemon.runner.sequence import Submission
from lhama.daemon.wire import codec
from lhama.daemon.wire.messages import (
    Cancel,
    Embed,
    Failed,
    FromRunner,
    Generate,
    Ping,
    Pong,
    Render,
    Rendered,
    Shutdown,
    ToRunner,
)
from lhama.plugins.backend import Engine


class Sender:
    """Writes frames to the daemon, from any thread."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def __call__(self, message: FromRunner) -> None:
        frame = codec.encode(message)
        with self._lock:
            self._connection.sendall(frame)


class Service:
    """One loaded model's requests."""

    def __init__(self, engine: Engine, facts: ModelFacts, pipeline: Pipeline, send: Sender) -> None:
        self._engine = engine
        self._tokenizer = engine.tokenizer
        self._facts = facts
        self._pipeline = pipeline
        self._inbox = pipeline.inbox
        self._send = send
        self._grammars = Grammars(engine.tokenizer)

    def handle(self, message: ToRunner) -> None:
        """Answer one message, or hand it to the pipeline. Never raises for a request's sake."""
        match message:
            case Generate():
                self._guarded(message.id, lambda: self._generate(message))
            case Render():
                self._guarded(message.id, lambda: self._render(message))
            case Embed():
                self._inbox.put(
                    Job(lambda: self._guarded(message.id, lambda: self._embed(message)))
                )
            case Cancel(id=request_id):
                self._inbox.put(Cancelled(request_id))
            case Ping(id=ping_id):
                self._send(Pong(ping_id, self._pipeline.progress, self._pipeline.active))
            case Shutdown():
                self._inbox.put(None)

    def _generate(self, request: Generate) -> None:
        limit = self._engine.limits.context
        built = build(
            request.prompt, self._tokenizer, self._facts, limit, request.num_keep, request.shift
        )
        if not built.tokens:
            raise RunnerFailed("the prompt is empty: its template renders to nothing", status=400)
        if built.images:
            raise RunnerFailed(
                "Multimodal data provided, but model does not support multimodal requests.",
                status=400,
                kind="invalid_request_error",
            )
        parser = OutputParser(request.prompt, built.text, self._facts.jinja)
        transcript = built.text if request.want_context else None
        answer = Answer(
            request.id, self._tokenizer, request.stop, parser, transcript, built.truncated
        )
        grammar = self._grammars.matcher(request.grammar) if request.grammar else None
        if grammar is not None and not self._engine.limits.late_mask:
            raise RunnerFailed("this model's backend has no structured output", status=400)
        self._inbox.put(
            Submission(
                request.id,
                built.tokens,
                request.sampling,
                request.num_predict,
                self._kept(request.num_keep, built.tokens),
                request.shift,
                request.logprobs,
                answer,
                grammar,
            )
        )

    def _kept(self, num_keep: int, prompt: list[int]) -> int:
        """Tokens a context shift keeps: a BOS and ``num_keep`` more; negative: all of the prompt."""
        return len(prompt) if num_keep < 0 else num_keep + self._tokenizer.add_bos

    def _render(self, request: Render) -> None:
        limit = self._engine.limits.context
        shown = render(request.prompt, self._tokenizer, self._facts, limit)
        tokens = len(encode(shown.text, self._tokenizer))
        self._send(Rendered(request.id, shown.text, shown.images, tokens))

    def _embed(self, request: Embed) -> None:
        self._send(embed(self._engine, request))

    def _guarded(self, request_id: int, work: Callable[[], None]) -> None:
        """Run a request's work; whatever it raises becomes that request's answer."""
        try:
            work()
        except RunnerFailed as e:
            self._send(Failed(request_id, e.message, e.status, e.kind, e.details))
        except LhamaError as e:
            self._send(Failed(request_id, e.message, e.status))
        except Exception as e:
            traceback.print_exc()
            self._send(Failed(request_id, f"{type(e).__name__}: {e}"))
