"""Answers the daemon: turns requests into submissions, and everything else into replies.

Runs on the reader thread. Templates, tokenizers and grammars work here, beside the pipeline's
thread and away from the daemon.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable

from lhama.daemon.errors import RunnerFailed
from lhama.daemon.prompt.build import Built, ModelFacts, build, encode, render, without_bos
from lhama.daemon.prompt.fit import refuse_beyond
from lhama.daemon.prompt.output import OutputParser
from lhama.daemon.runner.answer import Answer
from lhama.daemon.runner.embedding import EmbeddingLine, TextRequest
from lhama.daemon.runner.failure import failure
from lhama.daemon.runner.grammar import Compilers, Grammar, Grammars
from lhama.daemon.runner.media import lay_out, split
from lhama.daemon.runner.pipeline import Arranged, Cancelled, Pipeline
from lhama.daemon.runner.sequence import Submission
from lhama.daemon.runner.textline import TextLine
from lhama.daemon.runner.texts import TextFacts, TextTokenizer
from lhama.daemon.wire import codec
from lhama.daemon.wire.messages import (
    Arrange,
    Cancel,
    Embed,
    Failed,
    FromRunner,
    Generate,
    Observe,
    Ping,
    Pong,
    Prompt,
    Rank,
    Render,
    Rendered,
    Shutdown,
    ToRunner,
)
from lhama.plugins.backend import BackendError, Engine, Media, ReadsMedia

NO_EMBEDDINGS = "This server does not support embeddings. Start it with `--embeddings`"
NO_MEDIA = "Multimodal data provided, but model does not support multimodal requests."
NO_RANKING = "This server does not support reranking. Start it with `--reranking`"
"""llama-server's words, which Ollama relays and clients know."""

ONLY_RANKS = "this model ranks documents: it gives no embeddings"
ONLY_EMBEDS = "this model gives embeddings: it does not generate"


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

    def __init__(
        self,
        engine: Engine,
        facts: ModelFacts,
        text_facts: TextFacts,
        pipeline: Pipeline,
        send: Sender,
    ) -> None:
        self._engine = engine
        self._tokenizer = engine.tokenizer
        self._facts = facts
        self._texts = TextTokenizer(engine.tokenizer, text_facts, engine.limits.context)
        self._pipeline = pipeline
        self._inbox = pipeline.inbox
        self._send = send
        self._tags: dict[tuple[str, ...], frozenset[int]] = {}
        self._seen = -1
        self._compilers = Compilers(Grammars(engine.tokenizer))
        if engine.limits.late_mask:
            self._compilers.prepare(idle=self._resting)

    def _resting(self) -> bool:
        """Whether there is nothing to do, and was not since this was asked before."""
        before, self._seen = self._seen, self._pipeline.progress
        return before == self._seen and not self._pipeline.active

    def handle(self, message: ToRunner) -> None:
        """Answer one message, or hand it to the pipeline. Never raises for a request's sake."""
        match message:
            case Generate():
                self._guarded(message.id, lambda: self._generate(message))
            case Render():
                self._guarded(message.id, lambda: self._render(message))
            case Embed():
                self._guarded(message.id, lambda: self._refuse_embedding(message))
            case Rank():
                self._guarded(message.id, self._refuse_ranking)
            case Cancel(id=request_id) if self._compilers.cancel(request_id):
                pass  # the pipeline does not know it yet
            case _:
                if isinstance(message, Shutdown):
                    self._compilers.close()
                control(message, self._pipeline, self._send)

    def _generate(self, request: Generate) -> None:
        _check(request)
        limit = self._engine.limits.context
        built = build(
            request.prompt, self._tokenizer, self._facts, limit, request.num_keep, request.shift
        )
        if not built.tokens:
            raise RunnerFailed("the prompt is empty: its template renders to nothing", status=400)
        tokens, media = built.tokens, dict[int, Media]()
        if built.images:
            tokens, media = self._with_media(request.prompt, built)
            refuse_beyond(len(tokens), limit)
        parser = OutputParser(request.prompt, built.text, self._facts.jinja)
        transcript = built.text if request.want_context else None
        answer = Answer(
            request.id,
            self._tokenizer,
            request.stop,
            parser,
            transcript,
            built.truncated,
            self._tokens_of(parser.tags),
        )
        submission = Submission(
            request.id,
            tokens,
            request.sampling,
            request.num_predict,
            self._kept(request.num_keep, tokens),
            request.shift and not media,  # what a medium's positions mean hangs on all of them
            request.logprobs,
            answer,
            media=media,
        )
        if request.grammar:
            self._constrain(submission, request.grammar)
        else:
            self._inbox.put(submission)

    def _with_media(self, prompt: Prompt, built: Built) -> tuple[list[int], dict[int, Media]]:
        """The prompt's tokens with its pictures and sounds in their places."""
        engine = self._engine
        if "media" not in engine.limits.features or not isinstance(engine, ReadsMedia):
            raise RunnerFailed(NO_MEDIA, status=400, kind="invalid_request_error")
        parts = split(without_bos(prompt, built.text, self._tokenizer), built.images)
        try:
            return lay_out(engine.read_prompt(parts))
        except BackendError as error:
            raise RunnerFailed(str(error), status=400, kind="invalid_request_error") from None

    def _constrain(self, submission: Submission, text: str) -> None:
        """Have the grammar made, then submit."""
        if not self._engine.limits.late_mask:
            raise RunnerFailed("this model's backend has no structured output", status=400)

        def made(outcome: Grammar | Exception) -> None:
            self._guarded(submission.id, lambda: submit(outcome))

        def submit(outcome: Grammar | Exception) -> None:
            if isinstance(outcome, Exception):
                raise outcome
            submission.grammar = outcome
            self._inbox.put(submission)

        self._compilers.begin(submission.id, text, made)

    def _tokens_of(self, tags: tuple[str, ...]) -> frozenset[int]:
        """The tokens of those tags that are one."""
        known = self._tags.get(tags)
        if known is None:
            encode = self._tokenizer.encode
            tokens = (encode(tag, add_special=False, parse_special=True) for tag in tags)
            known = self._tags[tags] = frozenset(t[0] for t in tokens if len(t) == 1)
        return known

    def _kept(self, num_keep: int, prompt: list[int]) -> int:
        """Tokens a context shift keeps: ``num_keep``, negative: all of the prompt, and one more
        where the tokenizer adds a BOS, as llama.cpp's server has it."""
        return (len(prompt) if num_keep < 0 else num_keep) + self._tokenizer.add_bos

    def _render(self, request: Render) -> None:
        limit = self._engine.limits.context
        shown = render(request.prompt, self._tokenizer, self._facts, limit)
        tokens = len(encode(request.prompt, shown.text, self._tokenizer))
        self._send(Rendered(request.id, shown.text, len(shown.images), tokens))

    def _refuse_embedding(self, request: Embed) -> None:
        """Inputs that are too long are told so first."""
        deque(self._texts.admitted(request), maxlen=0)
        raise RunnerFailed(NO_EMBEDDINGS, status=501)

    def _refuse_ranking(self) -> None:
        raise RunnerFailed(NO_RANKING, status=501)

    def _guarded(self, request_id: int, work: Callable[[], None]) -> None:
        """Run a request's work; whatever it raises becomes that request's answer."""
        try:
            work()
        except Exception as error:
            self._send(failure(request_id, error))


def _check(request: Generate) -> None:
    """Refuse what llama-server refuses, in its words; it takes no -1 for ``repeat_last_n``, which
    Ollama documents, and so it is taken here."""
    values = {"n_keep": request.num_keep, "repeat_last_n": request.sampling.repeat_last_n}
    for (name, value), least in zip(values.items(), (-1, 0), strict=True):
        if value < -1:
            raise RunnerFailed(
                f"Field '{name}': Value must be between {least} <= value <= 2147483647, "
                f"but got {value}",
                status=400,
                kind="invalid_request_error",
            )
    if request.sampling.repeat_penalty <= 0:
        raise RunnerFailed(
            "Failed to initialize samplers: penalty_repeat must be finite and greater than 0",
            status=400,
            kind="invalid_request_error",
        )


class EmbeddingService:
    """The requests of one loaded model that embeds. Its texts are tokenized on the line."""

    def __init__(self, engine: Engine, facts: TextFacts, line: EmbeddingLine, send: Sender) -> None:
        self._ranks = "rank" in engine.limits.features
        self._tokenizer = TextTokenizer(engine.tokenizer, facts, engine.limits.context)
        self._line = line
        self._send = send

    def handle(self, message: ToRunner) -> None:
        """Hand a request to the line, or say why not."""
        match message:
            case Embed(id=request_id, inputs=inputs) if not self._ranks:
                texts = self._tokenizer.texts(message)
                self._line.inbox.put(TextRequest(request_id, texts, len(inputs)))
            case Rank(id=request_id, documents=documents) if self._ranks:
                texts = self._tokenizer.pairs(message)
                self._line.inbox.put(TextRequest(request_id, texts, len(documents)))
            case Embed(id=request_id):
                self._refuse(request_id, ONLY_RANKS, status=400)
            case Rank(id=request_id):
                self._refuse(request_id, NO_RANKING, status=501)
            case Generate(id=request_id) | Render(id=request_id):
                self._refuse(request_id, ONLY_EMBEDS, status=400)
            case _:
                control(message, self._line, self._send)

    def _refuse(self, request_id: int, message: str, *, status: int) -> None:
        self._send(Failed(request_id, message, status))


def control(message: ToRunner, line: Pipeline | EmbeddingLine | TextLine, send: Sender) -> None:
    """Messages that every kind of model understands."""
    match message:
        case Cancel(id=request_id):
            line.inbox.put(Cancelled(request_id))
        case Ping(id=ping_id):
            send(Pong(ping_id, line.progress, line.active))
        case Observe():
            send(line.observed(message))
        case Arrange(pipeline=pipeline):
            if isinstance(line, Pipeline):
                line.inbox.put(Arranged(pipeline))
        case Shutdown():
            line.inbox.put(None)
