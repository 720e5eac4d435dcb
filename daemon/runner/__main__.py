"""Entry of the runner process: ``python -P -m lhama.daemon.runner FD PARENT``.

``FD`` is the runner's end of a socket pair; the daemon, process ``PARENT``, keeps the other. The
first message is ``Load``; when the daemon goes, so does the runner.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading

from lhama.daemon import garbage
from lhama.daemon.lifeline import die_with_parent
from lhama.daemon.prompt.build import ModelFacts
from lhama.daemon.runner.batcher import Batcher
from lhama.daemon.runner.embedding import EmbeddingLine
from lhama.daemon.runner.emitter import Emitter
from lhama.daemon.runner.pipeline import Pipeline
from lhama.daemon.runner.service import EmbeddingService, Sender, Service
from lhama.daemon.runner.textline import TextLine
from lhama.daemon.runner.texts import TextFacts
from lhama.daemon.runner.textservice import TextService
from lhama.daemon.runner.trial import Order, Trial
from lhama.daemon.wire import codec
from lhama.daemon.wire.messages import Load, Loaded, LoadFailed, LoadProgress, Shutdown, ToRunner
from lhama.plugins.backend import BackendError, Engine, EngineLost, OutOfMemory
from lhama.plugins.manager import PluginManager
from lhama.plugins.text import TextEngine

SWITCH_INTERVAL = 0.0005
"""Seconds a thread may keep the interpreter when another wants it (Python's default is 5 ms: a
token's time on a small model)."""

RECEIVE = 1 << 16

ENGINE = ("limits", "residency", "tokenizer", "prepare_next", "compute_current", "embed", "close")
"""What an ``Engine`` must have."""


def main() -> None:
    connection = socket.socket(fileno=int(sys.argv[1]))
    die_with_parent(int(sys.argv[2]))
    sys.setswitchinterval(SWITCH_INTERVAL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the daemon, which drains first
    frames = Frames(connection)
    send = Sender(connection)
    load = frames.next()
    if not isinstance(load, Load):
        return
    try:
        engine = load_engine(load, send)
    except OutOfMemory as error:
        send(LoadFailed(str(error), out_of_memory=True))
        return
    except Exception as error:  # whatever a plugin raises: the daemon reports it in words
        known = isinstance(error, BackendError)
        send(LoadFailed(str(error) if known else f"{type(error).__name__}: {error}"))
        return
    if isinstance(engine, TextEngine):
        serve_text(engine, frames, send)
    else:
        serve(load, engine, frames, send)


def load_engine(load: Load, send: Sender) -> Engine | TextEngine:
    """Load the model with the backend the daemon chose. Raises what the backend raises."""
    registry = PluginManager().discover(load.blocked_plugins, tried=True)
    backend = registry.backends.get(load.backend)
    if backend is None:
        raise BackendError(f"the runner does not find the backend {load.backend!r}")
    engine = backend.load(load.model, load.options, lambda f, note: send(LoadProgress(f, note)))
    missing = [member for member in ENGINE if not hasattr(engine, member)]
    if missing and not isinstance(engine, TextEngine):
        raise BackendError(
            f"load gave {type(engine).__name__}, which is no engine: it lacks {', '.join(missing)}"
        )
    return engine


def serve(load: Load, engine: Engine, frames: Frames, send: Sender) -> None:
    """Run the model's line on this thread and the wire on another, until told to stop."""
    limits, residency = engine.limits, engine.residency
    order: Order = "off" if load.pipeline == "off" else limits.token_feed
    embeds = "embed" in limits.features
    text_facts = TextFacts.read(load.model.weights)
    line: Pipeline | EmbeddingLine
    service: Service | EmbeddingService
    if embeds:
        line = EmbeddingLine(engine, send, overlapped=order != "off")
        service = EmbeddingService(engine, text_facts, line, send)
    else:
        batcher = Batcher(limits, engine.tokenizer.end_tokens)
        trial = Trial(order) if load.pipeline == "auto" and limits.shares_cores else None
        line = Pipeline(engine, batcher, Emitter(send), order, trial)
        facts = ModelFacts.read(load.model.weights, projector=bool(load.model.projectors))
        service = Service(engine, facts, text_facts, line, send)
    reader = threading.Thread(target=read, args=(frames, service), name="wire", daemon=True)
    reader.start()
    send(
        Loaded(
            slots=limits.slots,
            context=limits.context,
            device=residency.device,
            total_bytes=residency.total_bytes,
            device_bytes=residency.device_bytes,
            pipeline=order,
            embeds=embeds,
            ranks="rank" in limits.features,
            notes=list(residency.notes),
        )
    )
    garbage.settle()
    try:
        line.run()
    except EngineLost as error:
        sys.stderr.write(f"{error}\n")  # the daemon hands on a runner's last words
        sys.stderr.flush()
        os._exit(1)  # nothing of the engine can be closed
    engine.close()


def serve_text(engine: TextEngine, frames: Frames, send: Sender) -> None:
    """As ``serve``, for a model that runs elsewhere."""
    line, residency = TextLine(engine, send), engine.residency
    service = TextService(line, send)
    threading.Thread(target=read, args=(frames, service), name="wire", daemon=True).start()
    send(
        Loaded(
            slots=engine.slots,
            context=engine.context,
            device=residency.device,
            total_bytes=residency.total_bytes,
            device_bytes=residency.device_bytes,
            pipeline="off",
            notes=list(residency.notes),
        )
    )
    line.run()
    engine.close()


def read(frames: Frames, service: Service | EmbeddingService | TextService) -> None:
    """The reader thread: everything the daemon says, until it is gone."""
    while (message := frames.next()) is not None:
        service.handle(message)
        if isinstance(message, Shutdown):
            return
    os._exit(0)  # the daemon is gone: whatever native code is doing, nobody waits for it


class Frames:
    """Blocking reader of the daemon's messages."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._decoder = codec.runner_side()
        self._ready: list[ToRunner] = []
        self._readable = select.poll()
        self._readable.register(connection, select.POLLIN)

    def next(self) -> ToRunner | None:
        """The next message; ``None`` when the daemon has closed the connection."""
        while not self._ready:
            # recv alone would be woken each time the daemon reads what was sent to it.
            self._readable.poll()
            try:
                data = self._connection.recv(RECEIVE)
            except ConnectionError:
                return None
            if not data:
                return None
            self._ready = self._decoder.feed(data)
        return self._ready.pop(0)


if __name__ == "__main__":
    main()
