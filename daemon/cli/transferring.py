"""``lhama pull`` and ``lhama push``: a model from its registry, a model to it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lhama.daemon.cli import output
from lhama.daemon.cli.client import Client, Json, ServerError

if TYPE_CHECKING:
    from rich.progress import TaskID

OWN_REGISTRIES = (".ollama.ai", ".ollama.com")


def pull(client: Client, model: str, *, insecure: bool = False) -> None:
    """Bring a model to the server, or up to date there; Ctrl-C leaves it to be resumed."""
    _follow(client.stream("/api/pull", _request(model, insecure)))


def push(client: Client, model: str, *, insecure: bool = False) -> None:
    """Send a model from the server to the registry in its name, and say where it is then."""
    try:
        _follow(client.stream("/api/push", _request(model, insecure)))
    except ServerError as error:
        if any(word in error.message.lower() for word in ("access denied", "unauthorized")):
            raise ServerError(
                "you are not authorized to push to this namespace, "
                "create the model under a namespace you own"
            ) from None
        raise
    output.say(f"\nYou can find your model at:\n\n\t{_place(model)}\n")


def _request(model: str, insecure: bool) -> Json:
    return {"model": model, "name": model, "insecure": insecure, "stream": True}


def _follow(updates: Iterable[Json]) -> None:
    with _display() as display:
        for update in updates:
            if update.get("digest"):
                display.blob(update)
            else:
                display.step(update.get("status", ""))


class _Plain:
    """For logs and pipes: every step once."""

    def __init__(self) -> None:
        self._last = ""

    def step(self, text: str) -> None:
        if text != self._last:
            output.note(text)
        self._last = text

    def blob(self, update: Json) -> None:
        size = output.size(update.get("total", 0))
        self.step(f"{update['status']} ({size})")


class _Live:
    """For terminals: a bar for each blob."""

    def __init__(self, board: Any) -> None:
        self._board = board
        self._bars: dict[str, TaskID] = {}
        self._last = ""

    def step(self, text: str) -> None:
        if text != self._last:
            self._board.step(text)
        self._last = text

    def blob(self, update: Json) -> None:
        completed, total = update.get("completed", 0), update.get("total", 0)
        if not completed and total:
            return  # a bar at nothing looks as if it were the last
        self._board.end_step()
        bar = self._bars.get(update["digest"])
        if bar is None:
            bar = self._board.add_task(f"{update['status']}:", total=total, completed=completed)
            self._bars[update["digest"]] = bar
        self._board.update(bar, completed=completed)


@contextmanager
def _display() -> Iterator[_Plain | _Live]:
    if not sys.stderr.isatty():
        yield _Plain()
        return
    from rich.console import Console

    from lhama.daemon.cli.board import Board

    with Board(Console(stderr=True)) as board:
        yield _Live(board)
        board.end_step()


def _place(model: str) -> str:
    """Where a model is found after its push, as Ollama says it."""
    from lhama.daemon.store import ModelName

    name = ModelName.parse(model)
    if name.host.endswith(OWN_REGISTRIES):
        return "https://ollama.com/" + name.short.removesuffix(":latest")
    return name.full
