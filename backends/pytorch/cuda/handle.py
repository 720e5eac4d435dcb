"""A step in flight on the card: when it ended, and what its rows drew."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

import numpy as np
import torch

from lhama.backends.pytorch.handle import failure, results_of, to_host, told
from lhama.backends.pytorch.sampler import Drawn, Fault, Request
from lhama.plugins.backend import BackendError, Row, RowResult, StepResult

NOTHING: Final = -2
"""Stands in the results until a kernel has written there; -1 is a kernel's word for a fault."""


class Mark:
    """A point in the stream of work; on a processor, where work is done when called, nothing."""

    def __init__(self, device: torch.device) -> None:
        self._event: torch.cuda.Event | None = None
        if device.type == "cuda":
            self._event = torch.cuda.Event(enable_timing=True, blocking=True)

    def set(self) -> None:
        if self._event is not None:
            self._event.record()

    def wait(self) -> None:
        if self._event is not None:
            self._event.synchronize()

    def since(self, earlier: Mark) -> int:
        """Nanoseconds of the device between two marks that have been passed."""
        if self._event is None or earlier._event is None:
            return 0
        return int(earlier._event.elapsed_time(self._event) * 1e6)


class Handle:
    """``lhama.plugins.backend.StepHandle``."""

    def __init__(
        self,
        rows: Sequence[Row],
        places: Sequence[int],
        drawn: np.ndarray[tuple[int, ...], np.dtype[np.int32]],
        marks: tuple[Mark, Mark],
        before: Handle | None,
    ) -> None:
        """``rows`` that sample, in the plan's order; ``drawn`` is where the card puts tokens, a
        row's at its place. ``marks``: for begin and end. ``before``: the step before."""
        self.when_masked: Callable[[Mapping[int, bytes]], None] | None = None
        self._rows = rows
        self._places = places
        self._tokens = drawn
        self._start, self.end = marks
        self._before = before.end if before is not None else None
        self._issued = threading.Event()
        self._error: BackendError | None = None
        self._general: tuple[Request, Drawn] | None = None
        self._kept: Drawn | None = None
        self._start.set()

    # ------------------------------------------------------------------- on the engine's side

    def finish(self, request: Request | None = None, drawn: Drawn | None = None) -> None:
        """All of the step is enqueued; ``drawn`` is what ``request``'s rows got the general way."""
        if request is not None and drawn is not None:
            self._kept = drawn  # the copies read from it
            self._general = request, drawn.map(to_host)
        self.end.set()
        self._issued.set()

    def fail(self, error: Exception) -> None:
        """End the step as a whole."""
        self._error = failure(error)
        self._issued.set()
        with suppress(Exception):
            self.end.set()

    @property
    def failed(self) -> bool:
        return self._error is not None

    # --------------------------------------------------------------------- on the core's side

    def supply_masks(self, masks: Mapping[int, bytes]) -> None:
        assert self.when_masked is not None, "the plan has no masked row"
        self.when_masked(masks)

    def result(self) -> StepResult:
        self._issued.wait()
        if self._error is not None:
            raise self._error
        with told():
            self.end.wait()
        self._kept = None
        tokens: list[int] = self._tokens.tolist()
        found = {
            (row.slot, row.epoch): _common(row, tokens[place])
            for row, place in zip(self._rows, self._places, strict=True)
        }
        if self._general is not None:
            for result in results_of(*self._general):
                found[result.slot, result.epoch] = result
        return StepResult(
            tuple(found.values()),
            self.end.since(self._start),
            self._start.since(self._before) if self._before is not None else -1,
        )


def _common(row: Row, token: int) -> RowResult:
    if token < 0:
        text = Fault.NOT_FINITE.text if token != NOTHING else "nothing was drawn"
        return RowResult(row.slot, row.epoch, 0, error=text)
    return RowResult(row.slot, row.epoch, token)
