"""Steps on the card: which kernels, and the graphs that replay those of ordinary steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch

from lhama.backends.pytorch.cuda.attention import Attention, covering
from lhama.backends.pytorch.cuda.cache import Cache
from lhama.backends.pytorch.cuda.draws import BEST
from lhama.backends.pytorch.cuda.kernels import sampling as kernels
from lhama.backends.pytorch.cuda.network import Network
from lhama.backends.pytorch.cuda.rows import RING, Rows
from lhama.backends.pytorch.cuda.several import FEW, Several, Tokens
from lhama.backends.pytorch.cuda.single import Single

SMALLEST: Final = 8
"""Rows of the smallest graph but the one for a single row."""


def bucket(rows: int, most: int) -> int:
    """Rows of the graph that computes ``rows``; ``most`` there can be."""
    if rows == 1:
        return 1
    if rows > FEW:
        return min(-(-rows // FEW) * FEW, most)
    return min(max(SMALLEST, covering(rows)), most)


class Steps:
    """Runs steps over fixed buffers. Everything here enqueues and returns."""

    def __init__(
        self,
        network: Network,
        cache: Cache,
        recent: torch.Tensor,
        context: int,
        slots: int,
        batch_tokens: int,
        *,
        pdl: bool,
    ) -> None:
        """``recent``: the ring of tokens that penalties look back on."""
        device = recent.device
        vocab = network.shape.vocab
        self.most = bucket(slots, 1 << 30)
        self.rows = Rows(self.most, device)
        self.last_token = torch.zeros(slots + 1, dtype=torch.int32, device=device)
        self.logits = torch.zeros(self.most, vocab, device=device)
        self.results = torch.full(
            (RING, self.most), -1, dtype=torch.int32, pin_memory=device.type == "cuda"
        )
        self._peaks = torch.zeros(self.most, -(-vocab // 16), device=device)
        self._scratch = torch.zeros(self.most, 3 * BEST, dtype=torch.int32, device=device)
        self._recent = recent
        self._cache = cache
        self._slots = slots
        self._batch_tokens = batch_tokens
        self._context = context
        self._vocab = vocab
        attention = Attention(network, cache, self.rows, pdl=pdl)
        self._single = Single(network, self.rows, attention, self.logits, self._peaks, pdl=pdl)
        self._several = Several(
            network, attention, max(batch_tokens, self.most), self.most, device, pdl=pdl
        )
        self._graphs: dict[tuple[int, int, bool], torch.cuda.CUDAGraph] = {}
        self._pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None

    def warm(self) -> None:
        """Run each kind of step once for nobody, so that every kernel is compiled and loaded."""
        self.rows["slots"].fill_(self._cache.nobody)
        self.rows["top_k"].fill_(1)
        self.rows["places"].fill_(len(self._recent) - 1)
        for count in sorted({bucket(rows, self.most) for rows in range(1, self._slots + 1)}):
            for penalised in (False, True):
                self._decode(count, 1, penalised)
        few = [covering(FEW) >> shift for shift in range(4)]
        for count in (*few, FEW + 1):
            if count <= self._batch_tokens:
                self._warm_prompt(count)

    def _warm_prompt(self, count: int) -> None:
        nobody, device = self._cache.nobody, self.logits.device
        zeros = torch.zeros(count, dtype=torch.int32, device=device)
        blocks = torch.tensor([[nobody], [0], [0], [1]], dtype=torch.int32, device=device)
        tokens = Tokens(zeros, zeros + nobody, zeros, 0, 1, blocks)
        self.mixed(tokens, zeros[:1], penalised=False)

    def decode(self, count: int, splits: int, *, penalised: bool) -> None:
        """A step in which every row has one token; ``count`` is a bucket's."""
        key = (count, splits, penalised)
        if self._pool is None:
            self._decode(*key)
            return
        graph = self._graphs.get(key)
        if graph is None:
            graph = self._graphs[key] = self._captured(lambda: self._decode(*key))
        graph.replay()

    def mixed(self, tokens: Tokens, outputs: torch.Tensor, *, penalised: bool) -> None:
        """Any other step; ``outputs`` int64 [rows]: the tokens that rows sample after."""
        normed = self._several.run(tokens, self.last_token)
        count = len(outputs)
        if count:
            picked = self._several.pick(normed, outputs)
            self._several.score(picked, self.logits[:count], self._peaks[:count])
            self._draw(count, penalised)

    def _decode(self, count: int, splits: int, penalised: bool) -> None:
        if count == 1:
            self._single.run(self.last_token, splits)
        else:
            rows = self.rows
            tokens = Tokens(
                rows["tokens"][:count], rows["slots"][:count], rows["positions"][:count],
                count, splits,
            )  # fmt: skip
            normed = self._several.run(tokens, self.last_token)
            self._several.score(normed, self.logits[:count], self._peaks[:count])
        self._draw(count, penalised)

    def _draw(self, count: int, penalised: bool) -> None:
        rows, peaks = self.rows, self._peaks.shape[1]
        if penalised:
            kernels.penalise[(count,)](
                self.logits, self._peaks, self._recent, rows["slots"], rows["accepted"],
                rows["sizes"], rows["repeat"], rows["presence"], rows["frequency"],
                self._vocab, peaks, self._context, num_warps=4,
            )  # fmt: skip
        size = covering(peaks)
        kernels.draw[(count,)](
            self.logits, self._peaks, self._scratch, rows["slots"], rows["temperature"],
            rows["top_k"], rows["top_p"], rows["min_p"], rows["number"], rows["places"],
            rows["ring"], self.last_token, self._recent, self.results,
            self._vocab, peaks, size, self.most, num_warps=min(16, max(4, size // 512)),
        )  # fmt: skip

    def _captured(self, run: Callable[[], None]) -> torch.cuda.CUDAGraph:
        """Record ``run`` on a stream of its own; nothing is executed and nobody waits."""
        graph = torch.cuda.CUDAGraph()
        current, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                run()
            finally:
                graph.capture_end()
        current.wait_stream(side)
        return graph
