"""Asks plugins questions that must be answered soon, and in the form that was agreed.

What a backend says is called from the daemon: an exception, a wrong type or no answer at all is
turned into words here. A call that never returns leaves its thread behind, one for each backend.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from lhama.plugins.backend import BackendError

ANSWER_SECONDS = 10.0
"""Reading headers from a sleeping disk and asking a driver take seconds; nothing takes longer."""

T = TypeVar("T")


class BadAnswer(BackendError):
    """A plugin raised what it should not, answered something else, or not at all."""


class Asker:
    """Questions to backends, by their names."""

    def __init__(self) -> None:
        self._silent: dict[str, threading.Thread] = {}
        """Backends that have not answered yet."""

    def ask(self, name: str, question: str, call: Callable[[], Any], answer: type[T]) -> T:
        """What ``call`` returns, an ``answer``. Raises ``BadAnswer`` for anything else, in words;
        a ``BackendError`` says itself what is wrong, and stays."""
        silent = self._silent.get(name)
        if silent is not None and silent.is_alive():
            raise BadAnswer(f"it still does not answer: restart lhama, or --no-plugins={name}")
        outcome: list[Any] = []

        def work() -> None:
            try:
                outcome.append(call())
            except BaseException as error:  # a plugin that exits leaves its own thread only
                outcome.append(error)

        thread = threading.Thread(target=work, name=f"{name}.{question}", daemon=True)
        thread.start()
        thread.join(ANSWER_SECONDS)
        if not outcome:
            self._silent[name] = thread
            raise BadAnswer(f"{question} gave no answer within {ANSWER_SECONDS:g} s")
        [found] = outcome
        if isinstance(found, BackendError):
            raise found
        if isinstance(found, BaseException):
            raise BadAnswer(f"{question} failed: {type(found).__name__}: {found}") from found
        if not isinstance(found, answer):
            raise BadAnswer(f"{question} gave {type(found).__name__}, not {answer.__name__}")
        return found
