"""What embedding models share: texts packed into one batch, attention within each, pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812

from lhama.backends.pytorch.batch import Batch, Span
from lhama.backends.pytorch.decoder import Decoder
from lhama.backends.pytorch.kv_cache import KVCache
from lhama.backends.pytorch.layers import Linear
from lhama.backends.pytorch.weights import Weights

_SLACK = 16
"""Tokens by which texts may differ and still be padded to one length."""


class Pooling(IntEnum):
    """``pooling_type`` in GGUF: how a text's hidden states become one vector."""

    NONE = 0
    MEAN = 1
    CLS = 2
    LAST = 3
    RANK = 4


class Encoder(Protocol):
    """A model that embeds."""

    def vectors(self, inputs: Sequence[Sequence[int]]) -> torch.Tensor:
        """A row for each tokenized text, in order: [texts, width]."""
        ...


@dataclass(frozen=True, slots=True)
class Group:
    """Texts of about one length, padded to the longest for attention."""

    tokens: slice
    """Where they lie in the flat batch."""
    cells: torch.Tensor
    """int64 [tokens]: each token's place in [texts · longest]."""
    shape: tuple[int, int]
    """Texts and tokens of the longest."""
    mask: torch.Tensor | None
    """bool [texts, 1, 1, longest], true where there is a token; ``None`` if all are equally long."""

    def pad(self, x: torch.Tensor) -> torch.Tensor:
        """[tokens, …] as [texts, longest, …], zeros behind the shorter ones."""
        if self.mask is None:
            return x.unflatten(0, self.shape)
        count, longest = self.shape
        return (
            x.new_zeros(count * longest, *x.shape[1:])
            .index_copy_(0, self.cells, x)
            .unflatten(0, self.shape)
        )

    def window(self, size: int) -> torch.Tensor:
        """``mask`` where a token sees ``size // 2`` tokens to either side: [texts, 1, longest,
        longest], or [longest, longest]."""
        at = torch.arange(self.shape[1], device=self.cells.device)
        near = (at.unsqueeze(1) - at).abs() <= size // 2
        return near if self.mask is None else near & self.mask

    def pack(self, x: torch.Tensor) -> torch.Tensor:
        """The way back."""
        flat = x.flatten(0, 1)
        return flat if self.mask is None else flat[self.cells]


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts one after the other, shortest first: linear layers see no padding."""

    ids: torch.Tensor
    """int64 [tokens]."""
    positions: torch.Tensor
    """int64 [tokens]."""
    lengths: torch.Tensor
    """int64 [texts]."""
    groups: tuple[Group, ...]
    place: torch.Tensor
    """int64 [texts]: where each of the inputs is among the texts."""

    @classmethod
    def build(cls, inputs: Sequence[Sequence[int]], device: torch.device) -> Texts:
        order = sorted(range(len(inputs)), key=lambda index: len(inputs[index]))
        texts = [inputs[index] for index in order]
        place = [0] * len(order)
        for at, index in enumerate(order):
            place[index] = at
        groups: list[Group] = []
        begin = start = 0
        for end in range(1, len(texts) + 1):
            if end == len(texts) or len(texts[end]) > max(
                len(texts[begin]) + _SLACK, len(texts[begin]) * 5 // 4
            ):
                groups.append(_group(texts[begin:end], start, device))
                begin, start = end, groups[-1].tokens.stop
        return cls(
            torch.tensor([token for text in texts for token in text], device=device),
            torch.tensor([at for text in texts for at in range(len(text))], device=device),
            torch.tensor([len(text) for text in texts], device=device),
            tuple(groups),
            torch.tensor(place, device=device),
        )

    def attend(
        self,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        scale: float,
        window: int = 0,
    ) -> torch.Tensor:
        """Every token sees its text, or with a ``window`` half of that to either side of it.

        [tokens, heads, head_dim] to [tokens, heads · head_dim]; keys may have fewer heads.
        """
        mixed = []
        for group in self.groups:
            q, k, v = (group.pad(x[group.tokens]).transpose(1, 2) for x in (queries, keys, values))
            if q.shape[1] != k.shape[1]:
                k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
            mask = group.window(window) if window else group.mask
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
            mixed.append(group.pack(out.transpose(1, 2)))
        return torch.cat(mixed).flatten(1)

    def pool(self, hidden: torch.Tensor, pooling: Pooling) -> torch.Tensor:
        """[tokens, width] to [texts, width], in the inputs' order."""
        ends = self.lengths.cumsum(0)
        if pooling is Pooling.LAST:
            pooled = hidden[ends - 1]
        elif pooling in (Pooling.CLS, Pooling.RANK):
            pooled = hidden[ends - self.lengths]
        else:
            sums = torch.cat([group.pad(hidden[group.tokens]).sum(1) for group in self.groups])
            pooled = sums / self.lengths.unsqueeze(1)
        return pooled[self.place]


def _group(texts: Sequence[Sequence[int]], start: int, device: torch.device) -> Group:
    lengths = [len(text) for text in texts]
    longest = lengths[-1]
    cells = [row * longest + at for row, length in enumerate(lengths) for at in range(length)]
    mask = None
    if lengths[0] < longest:
        known = torch.tensor(lengths, device=device).unsqueeze(1)
        mask = (torch.arange(longest, device=device) < known)[:, None, None, :]
    return Group(
        slice(start, start + len(cells)),
        torch.tensor(cells, device=device),
        (len(texts), longest),
        mask,
    )


class Classifier:
    """What a reranker makes of a pooled vector: a dense layer with tanh if there is one, then the
    outputs. ``shares``: of several outputs, each is its share of 1."""

    def __init__(self, weights: Weights, width: int, outputs: int, *, shares: bool = False) -> None:
        self._dense = self._output = None
        self._shares = shares
        if "cls.weight" in weights:
            self._dense = Linear.load(weights, "cls", width, width)
        if "cls.output.weight" in weights:
            self._output = Linear.load(weights, "cls.output", width, outputs)

    def __call__(self, pooled: torch.Tensor) -> torch.Tensor:
        if self._dense is not None:
            pooled = torch.tanh(self._dense(pooled))
        if self._output is not None:
            pooled = self._output(pooled)
        return pooled.float().softmax(-1) if self._shares else pooled


class CausalEncoder:
    """A decoder whose hidden states are pooled. The texts of a step lie one after the other in the
    cache's one slot, and none sees what lies before it."""

    def __init__(
        self,
        model: Decoder,
        cache: KVCache,
        pooling: Pooling,
        device: torch.device,
        piece: int,
        classifier: Classifier | None = None,
    ) -> None:
        """``piece``: tokens of a text that are computed at once, if it is alone."""
        self._model = model
        self._cache = cache
        self._pooling = pooling
        self._device = device
        self._piece = piece
        self._classifier = classifier

    def vectors(self, inputs: Sequence[Sequence[int]]) -> torch.Tensor:
        pieces = [inputs]
        if len(inputs) == 1:
            text, size = inputs[0], self._piece
            pieces = [[text[begin : begin + size]] for begin in range(0, len(text), size)]
        states: list[torch.Tensor] = []
        done = 0
        for part in pieces:
            batch = _packed(part, done).to(self._device)
            states.append(self._model.forward(batch, batch.ids, self._cache))
            done += len(part[0])
        normed = self._model.normed(torch.cat(states))
        texts = normed.split([len(text) for text in inputs])
        pooled = torch.stack([self._pooled(text) for text in texts])
        return self._classifier(pooled) if self._classifier is not None else pooled

    def _pooled(self, text: torch.Tensor) -> torch.Tensor:
        if self._pooling is Pooling.MEAN:
            return text.mean(0)
        return text[0 if self._pooling is Pooling.CLS else -1]


def _packed(texts: Sequence[Sequence[int]], done: int) -> Batch:
    """The texts as one batch; of a single one, what follows ``done`` tokens."""
    ids = [token for text in texts for token in text]
    positions = [done + at for text in texts for at in range(len(text))]
    spans, begin = [], 0
    for text in texts:
        end = begin + len(text)
        spans.append(Span(0, done + begin, begin, end, origin=begin))
        begin = end
    numbers = torch.tensor(ids, dtype=torch.int64)
    return Batch(
        rows=(),
        spans=tuple(spans),
        ids=numbers,
        sources=torch.full_like(numbers, -1),
        positions=torch.tensor(positions, dtype=torch.int64),
        cells=torch.arange(done, done + len(ids)),
        outputs=torch.empty(0, dtype=torch.int64),
        pending=(),
    )
