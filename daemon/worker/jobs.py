"""What the daemon and a worker process say to each other: one job, its progress, its outcome."""

from __future__ import annotations

from typing import TypeAlias

import msgspec


class Quantization(msgspec.Struct, tag=True):
    """Write a GGUF file with its tensors in other types, or with the same ones (``tools.COPY``)."""

    source: str
    target: str
    kind: str


class Conversion(msgspec.Struct, tag=True):
    """Make a GGUF file of the model in a folder."""

    folder: str
    target: str


class AdapterConversion(msgspec.Struct, tag=True):
    """Make a GGUF file of the LoRA adapter in a folder, for the model ``base``."""

    folder: str
    base: str
    target: str


Job: TypeAlias = Quantization | Conversion | AdapterConversion


class Order(msgspec.Struct):
    """All a worker is told: the job, and whose it is."""

    job: Job
    tool: str
    blocked_plugins: list[str] = []


class Share(msgspec.Struct, tag=True):
    """How much is done, in 0..1."""

    done: float


class Finished(msgspec.Struct, tag=True):
    """The target is written."""


class Refused(msgspec.Struct, tag=True):
    """It is not, and why. ``errno`` is not 0 where the disk was the reason."""

    message: str
    errno: int = 0


FromWorker: TypeAlias = Share | Finished | Refused
