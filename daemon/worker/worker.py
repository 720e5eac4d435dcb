"""Worker processes seen from the daemon."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Final

import msgspec
import structlog

from lhama.daemon.config import Settings
from lhama.daemon.errors import LhamaError
from lhama.daemon.wire.codec import FrameDecoder, FrameError
from lhama.daemon.worker.jobs import Finished, FromWorker, Job, Order, Refused, Share
from lhama.plugins.backend import Support
from lhama.plugins.registry import Registry

log = structlog.get_logger(__name__)

KEPT_ENVIRONMENT: Final = (
    *("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "LC_CTYPE", "SYSTEMROOT"),
    *("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"),
)
"""All a worker sees of the daemon's environment. What it makes is given away (pushed, copied):
nothing that is nobody's business may come near it."""

_CHUNK: Final = 1 << 14
_LAST_WORDS: Final = 20


class ToolFailed(LhamaError):
    """A tool did not finish. ``message`` is its own reason; ``ending`` how its process ended, as Go
    says it; ``errno`` is not 0 where the disk was the reason."""

    def __init__(self, message: str, *, ending: str = "exit status 1", errno: int = 0) -> None:
        super().__init__(message)
        self.ending = ending
        self.errno = errno


class Worker:
    """Runs the tools that plugins brought, one job at a time: each may use all cores."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self._registry = registry
        self._patience = settings.load_timeout / 1e9
        self._one = asyncio.Lock()

    # ------------------------------------------------------------------------------ which tool

    def quantizer(self, source: Path, kind: str) -> tuple[str, str]:
        """The first quantiser that writes this file as ``kind``, or "" and everybody's reasons.

        Reads headers: call it in a thread.
        """
        return _first(
            [
                (t.name, self._registry.judge_tool(t, str(source), kind))
                for t in self._registry.quantizers.values()
            ],
            "no quantizer is installed: pip install 'lhama[llamacpp]'",
        )

    def converter(self, folder: Path) -> tuple[str, str]:
        """The first converter for this folder, or "" and everybody's reasons."""
        return _first(
            [
                (t.name, self._registry.judge_tool(t, str(folder)))
                for t in self._registry.converters.values()
            ],
            "no converter is installed: pip install 'lhama[convert]'",
        )

    # ------------------------------------------------------------------------------ one job

    async def run(self, tool: str, job: Job) -> AsyncGenerator[float, None]:
        """Let ``tool`` do the job; yields how much is done, in 0..1.

        Closing the generator kills the process. Raises ``ToolFailed``.
        """
        order = msgspec.msgpack.encode(Order(job, tool, self._registry.others(tool)))
        async with self._one:
            process = await _start()
            last_words: deque[str] = deque(maxlen=_LAST_WORDS)
            listening = asyncio.create_task(_listen(process, last_words))
            try:
                async for share in self._watch(process, order, Path(job.target)):
                    yield share
            except ToolFailed as error:
                await asyncio.wait([listening], timeout=1)
                log.error(
                    "tool failed",
                    tool=tool,
                    job=type(job).__name__,
                    ending=error.ending,
                    reason=error.message,
                    last_words=[line for line in last_words if line],
                )
                raise
            finally:
                await asyncio.shield(_end(process, listening))

    async def _watch(
        self, process: asyncio.subprocess.Process, order: bytes, target: Path
    ) -> AsyncGenerator[float, None]:
        """Hand the order over and follow the work to its outcome."""
        assert process.stdin is not None
        process.stdin.write(order)
        process.stdin.close()
        decoder = FrameDecoder(msgspec.msgpack.Decoder(FromWorker))
        while True:
            try:
                data = await self._read(process, target)
                messages: list[FromWorker] = decoder.feed(data)
            except FrameError as error:
                raise ToolFailed(f"the worker sent nonsense: {error}") from None
            for message in messages:
                match message:
                    case Share(done):
                        yield done
                    case Finished():
                        return
                    case Refused(reason, errno):
                        raise ToolFailed(reason, errno=errno)
            if not data:
                raise ToolFailed("its process ended", ending=_ending(await process.wait()))

    async def _read(self, process: asyncio.subprocess.Process, target: Path) -> bytes:
        """The worker's next words. Raises ``ToolFailed`` when it neither speaks nor writes."""
        assert process.stdout is not None
        written = await asyncio.to_thread(os.path.getsize, target)
        while True:
            try:
                return await asyncio.wait_for(process.stdout.read(_CHUNK), self._patience)
            except TimeoutError:
                size = await asyncio.to_thread(os.path.getsize, target)
                if size <= written:
                    raise ToolFailed("it made no progress", ending="signal: killed") from None
                written = size


async def _start() -> asyncio.subprocess.Process:
    environment = {key: os.environ[key] for key in KEPT_ENVIRONMENT if key in os.environ}
    environment["GGML_NO_BACKTRACE"] = "1"  # by a debugger, which would print the memory's content
    try:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "lhama.daemon.worker", str(os.getpid())),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            start_new_session=True,  # a terminal's Ctrl-C is the daemon's to handle
        )
    except OSError as error:
        raise ToolFailed(f"its process could not be started: {error}") from error


async def _listen(process: asyncio.subprocess.Process, last_words: deque[str]) -> None:
    assert process.stderr is not None
    unfinished = ""
    while data := await process.stderr.read(_CHUNK):
        *lines, unfinished = (unfinished + data.decode("utf-8", "replace")).split("\n")
        unfinished = unfinished[-_CHUNK:]
        last_words.extend(lines)
    last_words.append(unfinished)


async def _end(process: asyncio.subprocess.Process, listening: asyncio.Task[None]) -> None:
    """Kill what still runs. An honest worker has said all by then."""
    try:
        process.kill()
    except ProcessLookupError:
        pass
    await process.wait()
    listening.cancel()


def _ending(code: int) -> str:
    """An exit status as Go's os/exec words it."""
    if code < 0:
        return f"signal: {(signal.strsignal(-code) or str(-code)).lower()}"
    return f"exit status {code}"


def _first(judged: Sequence[tuple[str, Support]], nobody: str) -> tuple[str, str]:
    for name, support in judged:
        if support.score > 0:
            return name, ""
    return "", "; ".join(support.reason for _, support in judged) or nobody
