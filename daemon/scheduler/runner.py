"""A runner process and the wire to it, seen from the daemon."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from lhama.daemon.durations import FOREVER, Duration
from lhama.daemon.errors import LhamaError, LoadError, RunnerFailed, RunnerLost
from lhama.daemon.scheduler.replies import EmbeddedReply, R, Reply, Sink, Stream
from lhama.daemon.scheduler.watchdog import Watchdog
from lhama.daemon.wire import codec
from lhama.daemon.wire.messages import (
    Arrange,
    Cancel,
    Delta,
    Embed,
    Embedded,
    Failed,
    FromRunner,
    Generate,
    Load,
    Loaded,
    LoadFailed,
    LoadProgress,
    Observe,
    Observed,
    Ping,
    Pong,
    Rank,
    Render,
    Rendered,
    Shutdown,
    Step,
    ToRunner,
)

log = structlog.get_logger(__name__)

LAST_WORDS = 20
"""Lines of a runner's stderr that are kept for error messages."""

STDERR_CHUNK = 1 << 14

STOP_GRACE = 5.0
"""Seconds a runner may take to finish its step and free its memory before it is killed."""

DEATH_GRACE = 10.0
"""Seconds a killed process may take to be gone; one that a driver holds may never be."""


Asked = Generate | Render | Embed | Rank | Observe


class OutOfMemoryAtLoad(LoadError):
    """The backend found too little memory: evicting others may help."""


class Runner(asyncio.Protocol):
    """One runner process. Made by ``start``; ``on_lost`` is called once when it ends unasked."""

    def __init__(
        self, name: str, on_lost: Callable[[Runner], None], patience: Duration = FOREVER
    ) -> None:
        """``patience``: how long one step may take before the process is given up."""
        self.name = name
        self.loaded: Loaded | None = None
        self._on_lost = on_lost
        self._watchdog = Watchdog(patience)
        self._verdict = ""
        self._watching: asyncio.Task[None] | None = None
        self._decoder = codec.daemon_side()
        self._streams: dict[int, Stream] = {}
        self._replies: dict[int, Reply[Any]] = {}
        self._ids = itertools.count(1)
        self._last_words: deque[str] = deque(maxlen=LAST_WORDS)
        self._stopping = False
        self._answer: asyncio.Future[Loaded] = asyncio.get_running_loop().create_future()
        self._heard_at = 0.0
        self._transport: asyncio.Transport
        self._process: asyncio.subprocess.Process
        self._tasks: set[asyncio.Task[None]] = set()

    # ----------------------------------------------------------------------------- life and death

    async def start(self, load: Load, stall: float) -> Loaded:
        """Spawn the process and load the model.

        ``stall``: seconds without a word from it after which it is given up. Raises ``LoadError``.
        """
        ours, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        try:
            with theirs:
                self._process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", "lhama.daemon.runner"),
                    *(str(theirs.fileno()), str(os.getpid())),
                    pass_fds=[theirs.fileno()],
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.PIPE,
                    start_new_session=True,  # a terminal's Ctrl-C is the daemon's to handle
                )
            self._transport, _ = await loop.create_unix_connection(lambda: self, sock=ours)
        except OSError as e:
            ours.close()
            raise LoadError(f"the runner process could not be started: {e}") from e
        self._spawn(self._listen_to_stderr())
        self._heard_at = loop.time()
        self._send(load)
        try:
            self.loaded = await self._await_loaded(stall)
        except BaseException:
            await self.stop(grace=0)
            raise
        self._watching = self._spawn(self._watch())
        return self.loaded

    async def _await_loaded(self, stall: float) -> Loaded:
        loop = asyncio.get_running_loop()
        while True:
            left = self._heard_at + stall - loop.time()
            done, _ = await asyncio.wait([self._answer], timeout=max(left, 0))
            if done:
                return self._answer.result()
            if loop.time() >= self._heard_at + stall:
                raise LoadError(f"timed out waiting for the runner to load {self.name}")

    async def stop(self, grace: float = STOP_GRACE, because: LhamaError | None = None) -> None:
        """End the process: asked at first, killed after ``grace`` seconds.

        ``because``: what requests that still run are told; nothing: that it was unloaded.
        """
        self._stopping = True
        if grace and not self._transport.is_closing():
            self._send(Shutdown())
            try:
                await asyncio.wait_for(self._process.wait(), grace)
            except TimeoutError:
                log.warning("runner killed: it did not stop in time", runner=self.name)
        await self._kill()
        self._transport.close()
        self._end_requests(because or RunnerLost("the model was unloaded"))

    async def _kill(self) -> None:
        try:
            self._process.kill()
        except ProcessLookupError:
            pass
        try:
            await asyncio.wait_for(self._process.wait(), DEATH_GRACE)
        except TimeoutError:
            log.error("runner does not die", runner=self.name, pid=self._process.pid)

    async def _watch(self) -> None:
        """Ping while there is work; give the process up when the watchdog says so."""
        while not self._verdict:
            await asyncio.sleep(self._watchdog.interval)
            if self._watchdog.wants_ping(bool(self._streams or self._replies)):
                self._send(Ping(0))
                self._verdict = self._watchdog.pinged()
        self._transport.abort()

    @property
    def doubt(self) -> str:
        """What looks wrong with it by now; empty: nothing."""
        return self._verdict or self._watchdog.doubt

    @property
    def condemned(self) -> bool:
        """Whether it was given up and has not ended yet."""
        return bool(self._verdict) and self._process.returncode is None

    @property
    def lost(self) -> bool:
        """Whether it takes no more requests."""
        return self._transport.is_closing()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._watching is not None:
            self._watching.cancel()
        self._spawn(self._bury())

    async def _bury(self) -> None:
        """The wire is closed: whatever the process still does, it is no runner any more."""
        try:
            await asyncio.wait_for(self._process.wait(), 0 if self._verdict else 0.5)
        except TimeoutError:
            await self._kill()
        if self._stopping:
            return
        await asyncio.sleep(0)  # let the last lines of stderr arrive
        reason = f"the model runner {self._verdict or self._how_it_ended()}{self._words()}"
        log.error("runner lost", runner=self.name, reason=reason)
        if not self._answer.done():
            self._answer.set_exception(LoadError(reason))
            return
        self._end_requests(RunnerLost(reason))
        self._on_lost(self)

    @property
    def cause(self) -> str:
        """Why it is lost, in a word or two: ``stuck``, a signal's name, ``exit status 1``."""
        code = self._process.returncode or 0
        if self._verdict:
            return "stuck"
        return signal.Signals(-code).name if code < 0 else f"exit status {code}"

    def _how_it_ended(self) -> str:
        killed = (self._process.returncode or 0) < 0
        return f"has terminated: {'signal ' * killed}{self.cause}"

    def _words(self) -> str:
        words = [line for line in self._last_words if line.strip()]
        return f": {words[-1]}" if words else ""

    def _end_requests(self, error: Exception) -> None:
        for stream in self._streams.values():
            stream.fail(error)
        for reply in self._replies.values():
            reply.fail(error)

    async def _listen_to_stderr(self) -> None:
        assert self._process.stderr is not None
        unfinished = ""
        # In chunks: readline() gives up on a long line, and a pipe nobody reads stops the runner.
        while data := await self._process.stderr.read(STDERR_CHUNK):
            self._heard_at = asyncio.get_running_loop().time()
            *lines, unfinished = (unfinished + data.decode("utf-8", "replace")).split("\n")
            unfinished = unfinished[-STDERR_CHUNK:]
            for line in lines:
                self._last_words.append(line.rstrip())
                log.debug("runner", runner=self.name, line=line.rstrip())
        self._last_words.append(unfinished)

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # ---------------------------------------------------------------------------------- the wire

    def data_received(self, data: bytes) -> None:
        try:
            messages = self._decoder.feed(data)
        except codec.FrameError as e:
            log.error("runner sent nonsense", runner=self.name, error=str(e))
            self._transport.abort()
            return
        self._watchdog.heard()
        news: dict[int, list[Delta]] = {}
        for message in messages:
            if isinstance(message, Step):
                for delta in message.deltas:
                    news.setdefault(delta.id, []).append(delta)
            else:
                self._receive(message)
        for request_id, deltas in news.items():  # one write for each client, however many steps
            if (stream := self._streams.get(request_id)) is not None:
                stream.deliver(deltas)

    def _receive(self, message: FromRunner) -> None:
        match message:
            case Failed(id=request_id):
                error = RunnerFailed(
                    message.message,
                    status=message.status,
                    kind=message.kind,
                    details=message.details,
                )
                if (request := self._waiting(request_id)) is not None:
                    request.fail(error)
            case Rendered() | Observed():
                if (reply := self._replies.get(message.id)) is not None:
                    reply.end(message)
            case Embedded():
                reply = self._replies.get(message.id)
                if isinstance(reply, EmbeddedReply):
                    reply.add(message)
            case LoadProgress():
                self._heard_at = asyncio.get_running_loop().time()
            case Loaded():
                self._answer.set_result(message)
            case LoadFailed():
                kind = OutOfMemoryAtLoad if message.out_of_memory else LoadError
                self._answer.set_exception(kind(message.message))
            case Pong():
                self._watchdog.answered(message)

    def _waiting(self, request_id: int) -> Stream | Reply[Any] | None:
        return self._streams.get(request_id) or self._replies.get(request_id)

    def _send(self, message: ToRunner) -> None:
        self._transport.write(codec.encode(message))

    # ------------------------------------------------------------------------------------ requests

    async def stream(self, request: Generate, sink: Sink) -> None:
        """Hand an answer's deltas to ``sink`` until its end. Cancelled, it cancels the request.

        Raises ``RunnerFailed``, ``RunnerLost`` or what the sink raises.
        """
        stream = Stream(sink)
        request.id = next(self._ids)
        self._streams[request.id] = stream
        self._ask(request, stream)
        try:
            await stream.wait()
        finally:
            del self._streams[request.id]
            if not stream.finished:
                self._cancel(request.id)

    async def call(self, request: Render | Embed | Rank | Observe, reply: Reply[R]) -> R:
        """The answer to a request. Raises as ``stream`` does."""
        request.id = next(self._ids)
        self._replies[request.id] = reply
        self._ask(request, reply)
        try:
            return await reply.wait()
        except asyncio.CancelledError:
            self._cancel(request.id)
            raise
        finally:
            del self._replies[request.id]

    def arrange(self, pipeline: str) -> None:
        """Have the line use another order: ``auto``, ``on`` or ``off``."""
        if not self.lost:
            self._send(Arrange(pipeline))

    def _ask(self, request: Asked, waiting: Stream | Reply[Any]) -> None:
        if self.lost:
            waiting.fail(RunnerLost("the model runner has just ended"))
        else:
            self._send(request)

    def _cancel(self, request_id: int) -> None:
        if not self.lost:
            self._send(Cancel(request_id))
