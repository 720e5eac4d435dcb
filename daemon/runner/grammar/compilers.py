"""Makes grammars beside everything else: a hostile schema costs its own request some seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from lhama.daemon.errors import RunnerFailed
from lhama.daemon.runner.grammar.maker import Grammars
from lhama.daemon.runner.grammar.masks import Grammar

THREADS = 4
DEADLINE = 15.0
"""Seconds after which a schema is refused. llguidance cannot be stopped: the thread that works on
it is lost until it is done."""

IDLE = 1.0
"""Seconds without any work after which the vocabulary is made, so that the first request with a
schema finds it ready."""

Done = Callable[[Grammar | Exception], None]


class Compilers:
    """A few threads, and what they work on by request id. Safe to use from any thread."""

    def __init__(self, grammars: Grammars) -> None:
        self._grammars = grammars
        self._threads = ThreadPoolExecutor(THREADS, "grammar")
        self._lock = threading.Lock()
        self._pending: dict[int, threading.Timer] = {}
        self._closed = threading.Event()

    @property
    def active(self) -> int:
        """Requests whose grammar is being made."""
        return len(self._pending)

    def begin(self, request_id: int, text: str, done: Done) -> None:
        """Call ``done`` from another thread with the grammar or what is wrong with it, once, and
        never after ``cancel``."""
        late = RunnerFailed(f"the schema takes longer than {DEADLINE:.0f} s to compile", status=400)
        timer = threading.Timer(DEADLINE, self._finish, (request_id, late, done))
        timer.daemon = True
        with self._lock:
            self._pending[request_id] = timer
        timer.start()
        self._threads.submit(self._work, request_id, text, done)

    def cancel(self, request_id: int) -> bool:
        """Forget a request; False if it is not here (any more)."""
        with self._lock:
            timer = self._pending.pop(request_id, None)
        if timer is not None:
            timer.cancel()
        return timer is not None

    def prepare(self, idle: Callable[[], bool]) -> None:
        """Make the vocabulary when ``idle`` says so, asked now and then, unless a request needs
        it first: streams would stand still meanwhile."""

        def wait() -> None:
            while not self._closed.wait(IDLE) and not self._grammars.ready:
                if idle():
                    self._grammars.vocabulary()

        threading.Thread(target=wait, name="vocabulary", daemon=True).start()

    def close(self) -> None:
        """Let no thread begin to use the tokenizer any more: it goes with the engine."""
        self._closed.set()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._grammars.close()

    def _work(self, request_id: int, text: str, done: Done) -> None:
        if request_id not in self._pending:
            return
        try:
            outcome: Grammar | Exception = self._grammars.make(text)
        except Exception as error:
            outcome = error
        self._finish(request_id, outcome, done)

    def _finish(self, request_id: int, outcome: Grammar | Exception, done: Done) -> None:
        with self._lock:  # what `done` does must not come after what follows a later `cancel`
            timer = self._pending.pop(request_id, None)
            if timer is not None:
                timer.cancel()
                done(outcome)
