"""Draws one token from a row of logits, with llama.cpp's chain and its order.

penalties → top_k → typical_p → top_p → min_p → temperature → seeded draw. Penalties touch a few
dozen tokens of the vocabulary and top-k leaves a few dozen, so numpy does both. What is left goes
through ``chain`` together with the batch's other rows, where that knows all the stages, else
through llama.cpp's own samplers. The tokens are those of the whole chain (``tests/backends``
compares them).
"""

from __future__ import annotations

import ctypes
import math
import weakref
from collections import Counter, deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lhama.backends.llamacpp import chain
from lhama.backends.llamacpp.library import L, np
from lhama.backends.llamacpp.topk import Bound, top
from lhama.plugins.backend import Sampling

if TYPE_CHECKING:
    import numpy.typing as npt

    Logits = npt.NDArray[np.float32]
    Ids = npt.NDArray[np.intp]

Drawn = tuple[int, float | None, tuple[tuple[int, float], ...]]
"""A token, its log-probability and the alternatives', where they were asked for."""

_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


class RowError(Exception):
    """This row cannot give a token; the others of its batch can."""


class Sampler:
    """One sequence's sampler: its chain, its random numbers and what penalties look back on.

    ``history`` is the prompt, oldest token first; ``context`` what a negative ``repeat_last_n``
    means; ``logprobs`` as in ``Admit``. Not to be shared by threads.
    """

    def __init__(
        self,
        sampling: Sampling,
        history: Sequence[int],
        vocab: int,
        context: int,
        logprobs: int = -1,
    ) -> None:
        self.sampling = sampling
        seed = sampling.seed % 0xFFFFFFFF  # that one would make llama.cpp draw a seed of its own
        self.uniform = chain.Uniform(seed) if chain.covers(sampling) else None
        """Its random numbers, if ``chain.draw`` can draw for it."""
        self.bound = Bound()
        self._vocab = vocab
        self._logprobs = logprobs
        self._penalties = Penalties.of(sampling, history, context)
        self._top_k = min(sampling.top_k, vocab) if sampling.top_k > 0 else vocab
        greedy = sampling.temperature <= 0 and sampling.typical_p >= 1
        own = greedy or self.uniform is not None
        self._chain = None if own else Chain(sampling, seed, self._top_k)

    def close(self) -> None:
        """Free the chain; the sampler must not be used again."""
        if self._chain is not None:
            self._chain.close()

    def edit(self, row: Logits, *, masked: bool = False) -> Logits:
        """Apply penalties to ``row`` (float32, [vocab]) in place; ``masked``: a mask may follow.

        Returns the logits as the model gave them, where log-probabilities will be asked for.
        """
        raw = row
        if self._logprobs >= 0 and (masked or self._penalties is not None):
            raw = row.copy()
        if self._penalties is not None:
            self._penalties.apply(row)
        return raw

    def draw(self, row: Logits, *, masked: bool = False) -> int:
        """The token drawn from an edited row, by itself. Raises ``RowError``."""
        if self.uniform is not None:
            best = top(row, self._top_k, self.bound.value)
            logits = row[best]
            check(float(logits[0]))
            self.bound.learn(float(logits[-1]))
            return int(best[chain.draw_one(logits, self.sampling, self.uniform.next())])
        if self._chain is None:
            token = int(row.argmax())  # a NaN counts as the largest
            check(float(row[token]))
            return token
        ids = top(row, self._top_k) if self._top_k < self._vocab else None
        check(float(row.max() if ids is None else row[ids[0]]))
        if masked:  # some stages take the logarithm of a forbidden token's 0
            allowed = row > -np.inf if ids is None else row[ids] > -np.inf
            ids = np.flatnonzero(allowed) if ids is None else ids[allowed]
        return self._chain.draw(row, ids, ordered=self._top_k < self._vocab)

    def allowed(self, token: int, row: Logits, mask: bytes) -> int:
        """``token`` if the mask has it, else one drawn from those it has: the order in which
        llama.cpp looks at a grammar. Raises ``RowError`` where there is none."""
        if token >> 3 < len(mask) and mask[token >> 3] >> (token & 7) & 1:
            return token
        row[~unpack(mask, self._vocab)] = -np.inf
        return self.draw(row, masked=True)

    def report(self, token: int, raw: Logits) -> Drawn:
        """Take note of the token that was drawn; its log-probability where it was asked for."""
        if self._penalties is not None:
            self._penalties.accept(token)
        if self._logprobs < 0:
            return token, None, ()
        return token, *logprobs(raw, token, self._logprobs)

    def sample(self, row: Logits, mask: bytes | None = None) -> Drawn:
        """``edit``, ``draw``, ``allowed`` and ``report``. Raises ``RowError``."""
        raw = self.edit(row, masked=mask is not None)
        token = self.draw(row)
        return self.report(token if mask is None else self.allowed(token, row, mask), raw)


class Penalties:
    """Repeat, frequency and presence penalties over the last tokens of a sequence."""

    def __init__(self, repeat: float, frequency: float, presence: float, window: int) -> None:
        self._repeat = np.float32(repeat)
        self._frequency = np.float32(frequency)
        self._presence = np.float32(presence)
        self._window: deque[int] = deque(maxlen=window)
        self._counts: Counter[int] = Counter()

    @classmethod
    def of(cls, sampling: Sampling, history: Sequence[int], context: int) -> Penalties | None:
        """The penalties ``sampling`` asks for, having seen ``history``; ``None`` if it asks none."""
        window = sampling.repeat_last_n if sampling.repeat_last_n >= 0 else context
        repeat, frequency = sampling.repeat_penalty, sampling.frequency_penalty
        presence = sampling.presence_penalty
        if window == 0 or (repeat == 1.0 and frequency == 0.0 and presence == 0.0):
            return None
        penalties = cls(repeat, frequency, presence, window)
        for token in history[-window:]:
            penalties.accept(token)
        return penalties

    def accept(self, token: int) -> None:
        """Count ``token``, forget the one that leaves the window."""
        if len(self._window) == self._window.maxlen:
            oldest = self._window[0]
            self._counts[oldest] -= 1
            if not self._counts[oldest]:
                del self._counts[oldest]
        self._window.append(token)
        self._counts[token] += 1

    def apply(self, row: Logits) -> None:
        """Divide positive logits by the repeat penalty, multiply others; subtract the rest."""
        size = len(self._counts)
        if not size:
            return
        ids = np.fromiter(self._counts.keys(), np.intp, size)
        counts = np.fromiter(self._counts.values(), np.float32, size)
        logits = row[ids]
        logits = np.where(logits <= 0, logits * self._repeat, logits / self._repeat)
        row[ids] = logits - (counts * self._frequency + self._presence)


class Chain:
    """llama.cpp's samplers behind top-k, and the array of candidates they work on."""

    def __init__(self, sampling: Sampling, seed: int, candidates: int) -> None:
        chain = L.llama_sampler_chain_init(L.llama_sampler_chain_default_params())
        self._free = weakref.finalize(self, L.llama_sampler_free, chain)
        self._chain = chain
        for stage in _stages(sampling, seed):
            L.llama_sampler_chain_add(chain, stage)
        self._memory = np.zeros(candidates, _CANDIDATE)
        self._id, self._logit = self._memory["id"], self._memory["logit"]
        self._data = self._memory.ctypes.data_as(L.llama_token_data_p)
        self._array = L.llama_token_data_array()
        self._reference = ctypes.byref(self._array)

    def draw(self, row: Logits, ids: Ids | None, ordered: bool) -> int:
        """A token of ``ids`` (``None``: of the whole row); ``ordered``: by falling logit."""
        size = len(row) if ids is None else len(ids)
        self._id[:size] = self._everything(size) if ids is None else ids
        self._logit[:size] = row if ids is None else row[ids]
        array = self._array
        array.data, array.size, array.selected, array.sorted = self._data, size, -1, ordered
        L.llama_sampler_apply(self._chain, self._reference)
        if not 0 <= array.selected < array.size:
            raise RowError("sampling selected no token")
        return int(array.data[array.selected].id)

    def close(self) -> None:
        self._free()

    @staticmethod
    def _everything(size: int) -> Any:
        return np.arange(size, dtype=np.int32)


def _stages(sampling: Sampling, seed: int) -> list[Any]:
    """The samplers behind top-k, those that change nothing left out.

    ``min_keep`` is 0 as in llama-server.
    """
    stages = []
    if sampling.typical_p < 1:
        stages.append(L.llama_sampler_init_typical(sampling.typical_p, 0))
    if sampling.top_p < 1:
        stages.append(L.llama_sampler_init_top_p(sampling.top_p, 0))
    if sampling.min_p > 0:
        stages.append(L.llama_sampler_init_min_p(sampling.min_p, 0))
    if sampling.temperature != 1:
        stages.append(L.llama_sampler_init_temp(sampling.temperature))
    stages.append(L.llama_sampler_init_dist(seed))
    return stages


def logprobs(
    row: Logits, token: int, alternatives: int
) -> tuple[float, tuple[tuple[int, float], ...]]:
    """The log-softmax of ``row`` at ``token`` and at its ``alternatives`` largest, largest first.

    In the arithmetic of llama.cpp's server (``get_token_probabilities``), whose numbers clients of
    Ollama know: probabilities are added up in 32 bits, the largest first, and lose the small ones.
    """
    ordered = np.sort(row)[::-1]
    largest = ordered[0]
    total = _exp(ordered - largest).cumsum(dtype=np.float32)[-1]

    def at(index: int) -> float:
        difference = row[index] - largest
        share = _exp(difference) / total
        return float(np.float32(np.log(np.float64(share))) if share else difference - np.log(total))

    best = top(row, min(alternatives, len(row))) if alternatives > 0 else ()
    return at(token), tuple((int(i), at(i)) for i in best)


def _exp(x: Logits) -> Logits:
    """float32, rounded as C's ``expf`` is, which NumPy's is not always."""
    return np.exp(x, dtype=np.float64).astype(np.float32)


def unpack(mask: bytes, vocab: int) -> npt.NDArray[np.bool_]:
    """A bit set of 32-bit little-endian words as one bool per token; missing bits are off."""
    bits = np.unpackbits(np.frombuffer(mask, np.uint8), bitorder="little", count=vocab)
    return bits.view(np.bool_)


def check(largest: float) -> None:
    if not math.isfinite(largest):
        if largest == -math.inf:
            raise RowError("no token is allowed here")
        raise RowError("the model's output is not a number: the file may be damaged")
