"""Ollama's ``options``: untyped on the wire, typed here.

Layers are merged in Ollama's order: defaults, ``OLLAMA_CONTEXT_LENGTH``, the model's PARAMETERs,
the request. Unknown names and nulls are ignored; a wrong type is a 500 with Go's text, as clients
of Ollama see it.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lhama.daemon.durations import quote
from lhama.daemon.errors import LhamaError
from lhama.plugins.backend import Sampling

MIN_CONTEXT = 4
MIN_VISION_CONTEXT = 2048
EMBEDDING_BATCH = 2048
"""``num_batch`` of embedding models, where nothing else is asked for and the context has room."""
STRONGEST_PENALTY = 1e6
"""Of penalties beyond it a token cannot tell the difference, but float32 overflows."""
PREDICT_CONTEXTS = 10
"""An answer ends after this many context lengths at the latest."""


@dataclass(frozen=True, slots=True)
class Options:
    """All options of a request. ``None`` and -1 leave the choice to the scheduler or backend."""

    num_ctx: int | None = None
    num_batch: int | None = None
    num_gpu: int | None = None
    main_gpu: int | None = None
    use_mmap: bool | None = None
    num_thread: int = 0
    num_keep: int = 4
    num_predict: int = -1
    stop: tuple[str, ...] = ()
    seed: int = -1
    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.9
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_last_n: int = 64
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    draft_num_predict: int = 0

    def sampling(self) -> Sampling:
        """The part that decides how tokens are drawn; a seed is drawn where none was given."""
        return Sampling(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=max(0.0, min(self.min_p, 1.0)),
            # llama-server is not sent a 0, so it keeps its default.
            typical_p=self.typical_p or 1.0,
            repeat_last_n=self.repeat_last_n,
            repeat_penalty=_repeat_penalty(self.repeat_penalty),
            presence_penalty=_penalty(self.presence_penalty),
            frequency_penalty=_penalty(self.frequency_penalty),
            seed=self._seed(),
        )

    def _seed(self) -> int:
        """32 bits as llama-server takes them, where all ones ask for a seed of its own: -1 does,
        -2 is a number like any other."""
        seed = self.seed & 0xFFFF_FFFF
        return secrets.randbelow(0xFFFF_FFFF) if seed == 0xFFFF_FFFF else seed

    def bounded_predict(self, context: int) -> int:
        """``num_predict`` for a context of this length; 0 counts as not given."""
        most = PREDICT_CONTEXTS * context
        return self.num_predict if 0 < self.num_predict <= most else most

    def floored(self, *, vision: bool) -> Options:
        """With ``num_ctx`` at least the least a model can run with."""
        if self.num_ctx is None:
            return self
        least = MIN_VISION_CONTEXT if vision else MIN_CONTEXT
        return replace(self, num_ctx=max(self.num_ctx, least))


def merge(*layers: Mapping[str, Any], context_length: int = 0) -> Options:
    """Options from the layers, later ones winning. Raises ``LhamaError`` (500) on a wrong type."""
    values: dict[str, Any] = {"num_ctx": context_length or None}
    for layer in layers:
        for name, value in layer.items():
            read = _READERS.get(name)
            if read is not None and value is not None:
                values[name] = read(name, value)
    return Options(**values)


def _penalty(value: float) -> float:
    """A penalty after which a logit is still a number."""
    bounded = max(-STRONGEST_PENALTY, min(value, STRONGEST_PENALTY))
    return bounded if abs(bounded) >= 1 / STRONGEST_PENALTY else 0.0


def _repeat_penalty(value: float) -> float:
    """A factor, so never 0 where it was not; what is not above 0 the runner refuses."""
    return (_penalty(value) or 1 / STRONGEST_PENALTY) if value > 0 else value


def _integer(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _wrong(name, "of type integer")
    whole = int(value)  # toward zero
    # What no int64 can hold becomes the smallest: so Go's conversion does on most processors.
    return whole if -(2**63) <= whole < 2**63 else -(2**63)


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(name, "of type float32")
    return float(value)


def _boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong(name, "of type boolean")
    return value


def _strings(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise _wrong(name, "of type array")
    if not all(isinstance(item, str) for item in value):
        raise _wrong(name, "of an array of strings")
    return tuple(value)


def _wrong(name: str, expected: str) -> LhamaError:
    return LhamaError(f"option {quote(name)} must be {expected}")


_INTEGERS = (
    "num_ctx num_batch num_gpu main_gpu num_thread num_keep num_predict seed top_k repeat_last_n "
    "draft_num_predict"
)
_NUMBERS = "temperature top_p min_p typical_p repeat_penalty presence_penalty frequency_penalty"
_READERS: dict[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(_INTEGERS.split(), _integer),
    **dict.fromkeys(_NUMBERS.split(), _number),
    "use_mmap": _boolean,
    "stop": _strings,
}
