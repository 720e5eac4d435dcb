"""What embedding models share: texts packed into one batch, attention within each, pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812

from lhama.backends.pytorch.batch import Batch
from lhama.backends.pytorch.families import Model
from lhama.backends.pytorch.kv_cache import KVCache
from lhama.plugins.backend import Row

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
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """Every token sees all of its text. [tokens, heads, head_dim] to [tokens, width]."""
        mixed = []
        for group in self.groups:
            q, k, v = (group.pad(x[group.tokens]).transpose(1, 2) for x in (queries, keys, values))
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=group.mask, scale=scale)
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


class CausalEncoder:
    """A decoder whose hidden states are pooled; computes one text after the other."""

    def __init__(
        self,
        model: Model,
        cache: KVCache,
        batch_tokens: int,
        pooling: Pooling,
        device: torch.device,
    ) -> None:
        self._model = model
        self._cache = cache
        self._batch_tokens = batch_tokens
        self._pooling = pooling
        self._device = device

    def vectors(self, inputs: Sequence[Sequence[int]]) -> torch.Tensor:
        return torch.stack([self._vector(tokens) for tokens in inputs])

    def _vector(self, tokens: Sequence[int]) -> torch.Tensor:
        states: list[torch.Tensor] = []
        for begin in range(0, len(tokens), self._batch_tokens):
            piece = tuple(tokens[begin : begin + self._batch_tokens])
            row = Row(0, 0, begin, piece, sample=False)
            batch = Batch.build([row], self._cache.context).to(self._device)
            states.append(self._model.forward(batch, batch.ids, self._cache))
        normed = self._model.normed(torch.cat(states))
        return {Pooling.CLS: normed[0], Pooling.LAST: normed[-1]}.get(self._pooling, normed.mean(0))
