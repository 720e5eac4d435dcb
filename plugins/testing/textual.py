"""The conformance suite for text engines: answers whole, cut, cancelled, side by side and refused."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from lhama.plugins.backend import Backend, LoadOptions, ModelFiles, Sampling
from lhama.plugins.testing.contract import Contract
from lhama.plugins.testing.suite import need
from lhama.plugins.text import Call, Cancel, End, Piece, Question, TextEngine, TextError, Turn

WAIT_SECONDS = 60
TOKENS = 8
MANY = 1000
"""Tokens of an answer that is not waited for."""

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
SCHEMA = '{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}'


@dataclass(frozen=True, slots=True)
class TextSubject:
    """A backend whose models run elsewhere, and one of them that answers now."""

    backend: Backend
    model: ModelFiles
    options: LoadOptions = field(default_factory=LoadOptions)
    prompts: tuple[str, ...] = ("Count to ten.", "Name three colours.", "Say hello.")
    tools: bool = False
    """The model takes tools."""
    constrained: bool = False
    """The model keeps to a JSON Schema."""
    unreachable: ModelFiles | None = None
    """A model whose server is not there."""
    registered: bool = True
    """An installed distribution's entry point brings the backend."""

    def load(self, model: ModelFiles | None = None) -> TextEngine:
        engine = self.backend.load(model or self.model, self.options, lambda share, what: None)
        assert isinstance(engine, TextEngine)
        return engine

    def question(self, number: int = 0) -> Question:
        turns = (Turn("user", self.prompts[number % len(self.prompts)]),)
        return Question(turns, sampling=Sampling(temperature=0, seed=1), most_tokens=TOKENS)


class Asked:
    """One question on its way; ``tell`` puts what comes where the test can wait for it."""

    def __init__(self, engine: TextEngine, question: Question) -> None:
        self.news: queue.SimpleQueue[Piece | End | TextError] = queue.SimpleQueue()
        self.cancel: Cancel = engine.start(question, self.news.put)

    def next(self) -> Piece | End | TextError:
        return self.news.get(timeout=WAIT_SECONDS)

    def all(self) -> list[Piece | End]:
        """To the end. Raises the ``TextError`` it may come to."""
        found: list[Piece | End] = []
        while not found or isinstance(found[-1], Piece):
            news = self.next()
            if isinstance(news, TextError):
                raise news
            found.append(news)
        return found


def said(news: list[Piece | End]) -> str:
    return "".join(one.content for one in news if isinstance(one, Piece))


class TextConformance(Contract):
    """Subclass it as ``Test…`` beside a fixture ``subject`` (scope ``module`` or wider) that returns
    a ``TextSubject``."""

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, subject: TextSubject) -> Iterator[TextEngine]:
        engine = subject.load()
        yield engine
        engine.close()

    @pytest.fixture(scope="class")
    @classmethod
    def whole(cls, subject: TextSubject, engine: TextEngine) -> list[Piece | End]:
        """The answer to the first question when nobody else asks."""
        return Asked(engine, subject.question()).all()

    def test_what_it_says_of_itself_is_sane(self, engine: TextEngine) -> None:
        assert engine.slots > 0
        assert engine.context > 0
        assert engine.residency.device
        assert 0 <= engine.residency.device_bytes <= engine.residency.total_bytes

    def test_an_answer_says_something_and_ends(self, whole: list[Piece | End]) -> None:
        assert said(whole)
        assert isinstance(whole[-1], End)

    def test_pieces_are_never_empty(self, whole: list[Piece | End]) -> None:
        for piece in whole[:-1]:
            assert isinstance(piece, Piece)
            assert piece.content or piece.thinking or piece.calls or piece.logprobs

    def test_nothing_comes_after_the_end(self, subject: TextSubject, engine: TextEngine) -> None:
        first = Asked(engine, subject.question())
        first.all()
        Asked(engine, subject.question(1)).all()
        assert first.news.empty()

    def test_tokens_are_counted(self, whole: list[Piece | End]) -> None:
        end = whole[-1]
        assert isinstance(end, End)
        assert 0 < end.tokens <= TOKENS
        assert end.prompt_tokens >= 0
        assert 0 <= end.cached_tokens <= end.prompt_tokens

    def test_a_limit_is_kept_and_told(self, subject: TextSubject, engine: TextEngine) -> None:
        news = Asked(engine, replace(subject.question(), most_tokens=2)).all()
        assert isinstance(news[-1], End)
        assert (news[-1].reason, news[-1].tokens) == ("length", 2)

    def test_a_stop_ends_the_answer_before_it(
        self, subject: TextSubject, engine: TextEngine, whole: list[Piece | End]
    ) -> None:
        text = said(whole)
        stop = text[len(text) // 2 :][:3]
        news = Asked(engine, replace(subject.question(), stop=(stop,))).all()
        assert said(news) == text.partition(stop)[0]
        assert isinstance(news[-1], End)
        assert news[-1].reason == "stop"

    def test_asking_again_gives_the_same(
        self, subject: TextSubject, engine: TextEngine, whole: list[Piece | End]
    ) -> None:
        assert said(Asked(engine, subject.question()).all()) == said(whole)

    def test_different_questions_get_different_answers(
        self, subject: TextSubject, engine: TextEngine
    ) -> None:
        answers = {said(Asked(engine, subject.question(n)).all()) for n in range(3)}
        assert len(answers) > 1

    def test_a_text_is_gone_on_with(self, subject: TextSubject, engine: TextEngine) -> None:
        question = replace(subject.question(), turns=(), text="One, two, three,")
        assert said(Asked(engine, question).all())

    def test_start_does_not_wait_for_the_answer(
        self, subject: TextSubject, engine: TextEngine
    ) -> None:
        """What is told is held up until ``start`` has returned."""
        started, news = threading.Event(), queue.SimpleQueue[Piece | End | TextError]()

        def tell(one: Piece | End | TextError) -> None:
            assert started.wait(WAIT_SECONDS / 2), "start waits for the answer"
            news.put(one)

        engine.start(subject.question(), tell)
        started.set()
        while isinstance(news.get(timeout=WAIT_SECONDS), Piece):
            pass

    def test_answers_come_side_by_side(self, subject: TextSubject, engine: TextEngine) -> None:
        alone = [said(Asked(engine, subject.question(n)).all()) for n in range(3)]
        together = [Asked(engine, subject.question(n)) for n in range(3)]
        assert [said(asked.all()) for asked in together] == alone

    # --------------------------------------------------------------------------------- cancellation

    def test_a_cancelled_answer_stops(self, subject: TextSubject, engine: TextEngine) -> None:
        """What was on its way still comes, and perhaps an error that says so; then it is quiet while
        another answer comes, and the limit was not reached."""
        asked = Asked(engine, replace(subject.question(), most_tokens=MANY))
        asked.next()
        asked.cancel()
        quiet = False
        while not quiet:
            quiet = True
            while not asked.news.empty():
                late = asked.news.get()
                quiet = isinstance(late, TextError)
                assert not isinstance(late, End) or late.tokens < MANY
            Asked(engine, subject.question(1)).all()
            quiet = quiet and asked.news.empty()

    def test_cancelling_twice_is_nothing(self, subject: TextSubject, engine: TextEngine) -> None:
        asked = Asked(engine, subject.question())
        asked.cancel()
        asked.cancel()

    def test_cancelling_after_the_end_is_nothing(
        self, subject: TextSubject, engine: TextEngine
    ) -> None:
        asked = Asked(engine, subject.question())
        asked.all()
        asked.cancel()

    def test_cancelling_one_leaves_the_others(
        self, subject: TextSubject, engine: TextEngine, whole: list[Piece | End]
    ) -> None:
        gone, stays = Asked(engine, subject.question(1)), Asked(engine, subject.question())
        gone.cancel()
        assert said(stays.all()) == said(whole)

    # ----------------------------------------------------------------------- tools, schemas, errors

    def test_tools_and_what_they_gave_are_taken(
        self, subject: TextSubject, engine: TextEngine
    ) -> None:
        need(subject.tools, "a model that takes tools")
        turns = (
            *subject.question().turns,
            Turn("assistant", calls=(Call("weather", {"city": "Porto"}),)),
            Turn("tool", "rain", tool="weather"),
        )
        question = replace(subject.question(), turns=turns, tools=(WEATHER,))
        assert isinstance(Asked(engine, question).all()[-1], End)

    def test_an_answer_keeps_to_its_schema(self, subject: TextSubject, engine: TextEngine) -> None:
        need(subject.constrained, "a model that keeps to a schema")
        question = replace(subject.question(), grammar=SCHEMA, most_tokens=100)
        assert isinstance(json.loads(said(Asked(engine, question).all()))["n"], int)

    def test_a_server_that_is_not_there_is_told_of(self, subject: TextSubject) -> None:
        need(subject.unreachable is not None, "a model whose server is not there")
        engine = subject.load(subject.unreachable)
        try:
            with pytest.raises(TextError, match=r"\w") as caught:
                Asked(engine, subject.question()).all()
        finally:
            engine.close()
        assert 500 <= caught.value.status < 600

    def test_closing_ends_its_threads(self, subject: TextSubject) -> None:
        subject.load().close()
        before = threading.active_count()
        engine = subject.load()
        Asked(engine, subject.question()).all()
        engine.close()
        assert threading.active_count() <= before
