"""The line of a model that runs elsewhere, with an engine that says what the test has it say."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

import pytest

from lhama.daemon.runner.pipeline import Cancelled
from lhama.daemon.runner.textline import TextLine, TextQuestion
from lhama.daemon.wire import codec
from lhama.daemon.wire.messages import Delta, Failed, FromRunner, Step
from lhama.plugins.backend import Residency
from lhama.plugins.text import Call, Cancel, End, Piece, Question, Tell, TextEngine, TextError


class Elsewhere:
    """A text engine; the test answers in the other server's place."""

    slots = 2
    context = 100
    residency = Residency("there", 0, 0)

    def __init__(self) -> None:
        self.asked: queue.SimpleQueue[tuple[str, Tell]] = queue.SimpleQueue()
        self.cancelled: queue.SimpleQueue[str] = queue.SimpleQueue()

    def start(self, question: Question, tell: Tell) -> Cancel:
        if question.text == "broken":
            raise TextError("nobody there", 504)
        self.asked.put((question.text, tell))
        return lambda: self.cancelled.put(question.text)

    def next(self, text: str) -> Tell:
        """The question that must come now."""
        asked, tell = self.asked.get(timeout=20)
        assert asked == text
        return tell

    def close(self) -> None: ...


class Line:
    def __init__(self) -> None:
        self.engine = Elsewhere()
        assert isinstance(self.engine, TextEngine)
        self.sent: queue.SimpleQueue[FromRunner] = queue.SimpleQueue()
        self.line = TextLine(self.engine, self._send)
        self.thread = threading.Thread(target=self.line.run)
        self.thread.start()

    def _send(self, message: FromRunner) -> None:
        codec.encode(message)  # what does not fit the wire is found here
        self.sent.put(message)

    def ask(self, request_id: int, text: str) -> None:
        self.line.inbox.put(TextQuestion(request_id, Question(text=text)))

    def deltas(self) -> list[Delta]:
        message = self.sent.get(timeout=20)
        assert isinstance(message, Step)
        return message.deltas

    def failed(self) -> Failed:
        message = self.sent.get(timeout=20)
        assert isinstance(message, Failed)
        return message


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line()
    yield line
    line.line.inbox.put(None)
    line.thread.join(20)
    assert not line.thread.is_alive()


def test_pieces_come_as_deltas(line: Line) -> None:
    line.ask(1, "a")
    tell = line.engine.next("a")
    for piece in (
        Piece("one"),
        Piece(calls=(Call("f", {"x": 1}, "c"),)),
        Piece(calls=(Call("g", {}),)),
    ):
        tell(piece)
    tell(End("length", prompt_tokens=3, tokens=4, cached_tokens=1))
    deltas: list[Delta] = []
    while not deltas or deltas[-1].done is None:
        deltas += line.deltas()
    assert "".join(delta.content for delta in deltas) == "one"
    calls = [call for delta in deltas for call in delta.tool_calls]
    assert [(call.name, call.index, call.id) for call in calls] == [("f", 0, "c"), ("g", 1, "")]
    done = deltas[-1].done
    assert done is not None
    assert (done.reason, done.prompt_tokens, done.eval_tokens) == ("length", 3, 4)
    assert done.cached_tokens == 1
    assert line.line.active == 0


def test_what_is_beyond_the_slots_waits_its_turn(line: Line) -> None:
    for request_id, text in enumerate("abc", 1):
        line.ask(request_id, text)
    first = line.engine.next("a")
    line.engine.next("b")
    assert line.engine.asked.empty()
    first(End("stop"))
    line.engine.next("c")


def test_who_gives_up_while_waiting_is_never_asked_for(line: Line) -> None:
    for request_id, text in enumerate("abcd", 1):
        line.ask(request_id, text)
    first = line.engine.next("a")
    line.engine.next("b")
    line.line.inbox.put(Cancelled(3))
    first(End("stop"))
    line.engine.next("d")
    assert line.engine.cancelled.empty()


def test_a_cancelled_answer_is_cancelled_there_and_says_no_more(line: Line) -> None:
    line.ask(1, "a")
    late = line.engine.next("a")
    line.line.inbox.put(Cancelled(1))
    assert line.engine.cancelled.get(timeout=20) == "a"
    late(Piece("too late"))
    late(TextError("cancelled"))
    line.ask(2, "b")
    line.engine.next("b")(Piece("now"))
    assert [delta.id for delta in line.deltas()] == [2]


def test_an_error_ends_its_request_alone(line: Line) -> None:
    line.ask(1, "broken")
    assert line.failed() == Failed(1, "nobody there", 504)
    line.ask(2, "b")
    line.ask(3, "c")
    tell, other = line.engine.next("b"), line.engine.next("c")
    tell(TextError("it broke", 502))
    assert line.failed() == Failed(2, "it broke", 502)
    other(Piece("well"))
    assert line.deltas() == [Delta(3, "well")]


@pytest.mark.parametrize("piece", [Piece("\ud800"), Piece(calls=(Call("f", {"x": 1 << 80}),))])
def test_what_does_not_fit_the_wire_ends_its_request_alone(line: Line, piece: Piece) -> None:
    line.ask(1, "a")
    line.ask(2, "b")
    tell, other = line.engine.next("a"), line.engine.next("b")
    tell(piece)
    assert "unreadable" in line.failed().message
    assert line.engine.cancelled.get(timeout=20) == "a"
    other(Piece("well"))
    assert line.deltas() == [Delta(2, "well")]


def test_closing_cancels_what_is_not_answered() -> None:
    line = Line()
    line.ask(1, "a")
    line.engine.next("a")
    line.line.inbox.put(None)
    line.thread.join(20)
    assert line.engine.cancelled.get(timeout=20) == "a"
