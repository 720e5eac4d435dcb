"""Steps in flight: the order they run in, and the one wait for their results."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

from lhama.backends.pytorch.sampler import Drawn, Fault, Request
from lhama.plugins.backend import BackendError, EngineLost, OutOfMemory, RowResult, StepResult


class Handle:
    """``lhama.plugins.backend.StepHandle``."""

    def __init__(self, device: torch.device) -> None:
        self.logits: torch.Tensor | None = None
        self.when_masked: Callable[[Mapping[int, bytes]], None] | None = None
        self._on_cuda = device.type == "cuda"
        self._issued = threading.Event()
        self._error: BackendError | None = None
        self._request: Request | None = None
        self._drawn: Drawn | None = None
        self._began = self._ended = 0
        self._start_event: torch.cuda.Event | None = None
        self._end_event: torch.cuda.Event | None = None
        self._kept: Drawn | None = None

    # ------------------------------------------------------------------- on the engine's side

    def start(self) -> None:
        """Note when the device begins with the step."""
        self._began = time.perf_counter_ns()
        if self._on_cuda:
            self._start_event = torch.cuda.Event(enable_timing=True)
            self._start_event.record()

    def finish(self, request: Request, drawn: Drawn | None) -> None:
        """Bring what was drawn to the host; on CUDA the copies are enqueued, not waited for."""
        self.logits = None
        self._request = request
        if drawn is not None:
            self._kept = drawn  # the copies read from it
            self._drawn = drawn.map(to_host)
        if self._on_cuda:
            self._end_event = torch.cuda.Event(enable_timing=True, blocking=True)
            self._end_event.record()
        self._ended = time.perf_counter_ns()
        self._issued.set()

    def fail(self, error: Exception) -> None:
        """End the step as a whole; later jobs of it are skipped."""
        self._error = failure(error)
        self._issued.set()

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
        elapsed = self._ended - self._began
        if self._start_event is not None and self._end_event is not None:
            with told():
                self._end_event.synchronize()
            elapsed = int(self._start_event.elapsed_time(self._end_event) * 1e6)
        self._kept = None
        if self._request is None or self._drawn is None:
            return StepResult((), elapsed)
        return StepResult(tuple(results_of(self._request, self._drawn)), elapsed)


def failure(error: Exception) -> BackendError:
    """What the core is told of an error while computing."""
    if isinstance(error, torch.OutOfMemoryError):
        return OutOfMemory(f"out of memory while computing: {error}")
    if isinstance(error, BackendError):
        return error
    if torch.cuda.is_initialized():
        try:
            torch.cuda.synchronize()
        except Exception as fatal:  # from now on the card says so to whatever it is asked
            return EngineLost(f"the card failed: {str(fatal).partition(chr(10))[0]}")
    wrapped = BackendError(f"PyTorch backend: {error}")
    wrapped.__cause__ = error
    return wrapped


@contextmanager
def told() -> Iterator[None]:
    """Errors of torch as the core is told them."""
    try:
        yield
    except Exception as error:
        raise failure(error) from error


def to_host(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.device.type != "cuda":
        return tensor.cpu()
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)


def results_of(request: Request, drawn: Drawn) -> list[RowResult]:
    faults: list[int] = drawn.faults.tolist()
    tokens: list[int] = drawn.tokens.tolist()
    own = drawn.logprobs.tolist() if drawn.logprobs is not None else []
    ids = drawn.top_ids.tolist() if drawn.top_ids is not None else []
    logs = drawn.top_logprobs.tolist() if drawn.top_logprobs is not None else []
    results: list[RowResult] = []
    for index, row in enumerate(request.rows):
        if faults[index]:
            results.append(RowResult(row.slot, row.epoch, 0, error=Fault(faults[index]).text))
            continue
        wanted = request.logprobs[index]
        if wanted < 0:
            results.append(RowResult(row.slot, row.epoch, tokens[index]))
            continue
        top = tuple(zip(ids[index], logs[index], strict=True))[:wanted] if wanted else ()
        results.append(RowResult(row.slot, row.epoch, tokens[index], own[index], top))
    return results


class Inline:
    """Runs jobs in the calling thread: on CUDA that enqueues them."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def submit(self, handle: Handle, job: Callable[[], None]) -> None:
        with torch.cuda.device(self._device):
            _run(handle, job)

    def close(self) -> None:
        torch.cuda.synchronize(self._device)


class Worker:
    """Runs jobs in order on a thread of its own."""

    def __init__(self, name: str, threads: int) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, args=(threads,), name=name, daemon=True)
        self._thread.start()

    def submit(self, handle: Handle, job: Callable[[], None]) -> None:
        self._jobs.put(lambda: _run(handle, job))

    def close(self) -> None:
        self._jobs.put(None)
        self._thread.join()

    def _serve(self, threads: int) -> None:
        if threads:
            torch.set_num_threads(threads)
        while (job := self._jobs.get()) is not None:
            job()


def _run(handle: Handle, job: Callable[[], None]) -> None:
    if handle.failed:
        return
    try:
        with torch.inference_mode():
            job()
    except Exception as error:
        handle.fail(error)
