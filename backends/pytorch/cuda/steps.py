"""Steps on the card: which kernels, and the graphs that replay them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch

from lhama.backends.pytorch.cuda.attention import QUERIES, Attention, covering
from lhama.backends.pytorch.cuda.cache import Cache
from lhama.backends.pytorch.cuda.kernels import sampling as kernels
from lhama.backends.pytorch.cuda.network import Network
from lhama.backends.pytorch.cuda.rows import BLOCK_FIELDS, RING, Rows
from lhama.backends.pytorch.cuda.several import Several, Tokens
from lhama.backends.pytorch.cuda.single import Single
from lhama.backends.pytorch.cuda.written import FEW

SMALLEST: Final = 8
"""Rows of the smallest graph but the one for a single row."""
SCRATCH: Final = 256
"""Words a row's draw needs."""
SHORTEST: Final = 32
"""Tokens of prompts in the smallest graph that has any."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Steps that one graph computes. Rows, tokens and blocks that are too many are nobody's."""

    single: int
    """Rows with one token each; they come first."""
    chunk: int
    """Tokens of prompts."""
    rows: int
    """Rows that sample."""
    splits: int
    """Of the cache, if there is one row alone."""
    penalised: bool

    def blocks(self, slots: int) -> int:
        """Pieces of prompts, whatever rows they belong to."""
        return self.chunk // QUERIES + min(slots, self.chunk)


class Sizes:
    """Rounds a step's numbers up to those of few kinds."""

    def __init__(self, slots: int, batch_tokens: int) -> None:
        self.slots = slots
        self.batch_tokens = batch_tokens
        self.rows = self.row_bucket(slots, 1 << 30)
        self.most_rows = 2 * self.rows if slots > 1 else 2
        """A padded number of rows with one token, and rows whose prompts end."""
        self.tokens = self.token_bucket(batch_tokens) + self.rows

    def row_bucket(self, rows: int, most: int | None = None) -> int:
        if rows <= 1:
            return rows
        most = self.rows if most is None else most
        if rows > FEW:
            return min(-(-rows // FEW) * FEW, most)
        return min(max(SMALLEST, covering(rows)), most)

    def token_bucket(self, tokens: int) -> int:
        """Powers of two and what lies half way between."""
        if not tokens:
            return 0
        size = max(SHORTEST, covering(tokens))
        return size * 3 // 4 if size > SHORTEST and tokens <= size * 3 // 4 else size

    def single_bucket(self, single: int, chunk: int) -> int:
        if not chunk or not single:
            return self.row_bucket(single)
        return self.row_bucket(max(single, 2)) if self.slots > 1 else single


class Steps:
    """Runs steps over fixed buffers. Everything here enqueues and returns."""

    def __init__(
        self,
        network: Network,
        cache: Cache,
        recent: torch.Tensor,
        context: int,
        sizes: Sizes,
        *,
        pdl: bool,
    ) -> None:
        """``recent``: the ring of tokens that penalties look back on."""
        device = recent.device
        vocab = network.shape.vocab
        self.sizes = sizes
        self._network = network
        most = sizes.most_rows
        longest = Kind(0, sizes.token_bucket(sizes.batch_tokens), 0, 1, False)
        self.rows = Rows(most, sizes.tokens, longest.blocks(sizes.slots), device)
        self.last_token = torch.zeros(sizes.slots + 1, dtype=torch.int32, device=device)
        self.logits = torch.zeros(most, vocab, device=device)
        self.results = torch.full(
            (RING, most), -1, dtype=torch.int32, pin_memory=device.type == "cuda"
        )
        self._peaks = torch.zeros(most, -(-vocab // 16), device=device)
        self._scratch = torch.zeros(most, SCRATCH, dtype=torch.int32, device=device)
        self._recent = recent
        self._nobody = cache.nobody
        self._context = context
        self._vocab = vocab
        self._attention = Attention(network, cache, self.rows, max(sizes.tokens, FEW), pdl=pdl)
        self._single = Single(
            network, self.rows, self._attention, self.logits, self._peaks, pdl=pdl
        )
        self._several = Several(
            network, self._attention, sizes.tokens, most, cache.nobody, device, pdl=pdl
        )
        self._graphs: dict[Kind, torch.cuda.CUDAGraph] = {}
        on_cuda = device.type == "cuda"
        self._pool = torch.cuda.graph_pool_handle() if on_cuda else None
        # One stream for all recordings: what a graph took and gave back, cuBLAS's workspace too,
        # is only given to the next one on the same stream.
        self._side = torch.cuda.Stream(device) if on_cuda else None

    def kind(self, single: int, chunk: int, ending: int, longest: int, *, penalised: bool) -> Kind:
        """Of a step: rows with one token, tokens of prompts, how many of these end, and how far
        back the longest row looks."""
        rows = self.sizes.single_bucket(single, chunk)
        sampled = rows
        if ending:
            sampled = min(max(SMALLEST, covering(rows + ending)), self.sizes.most_rows)
        splits = self._attention.splits_for(longest) if (single, chunk) == (1, 0) else 1
        return Kind(rows, self.sizes.token_bucket(chunk), sampled, splits, penalised)

    def run(self, kind: Kind) -> None:
        """Compute what lies in ``rows``."""
        if self._pool is None:
            self._run(kind)
            return
        graph = self._graphs.get(kind)
        if graph is None:
            graph = self._graphs[kind] = self._captured(lambda: self._run(kind))
        graph.replay()

    def warm(self) -> None:
        """Run each kind of step once for nobody, so that every kernel is compiled and loaded."""
        sample, whole = self._network.sample(), self._network
        self._single.network = self._several.network = sample
        try:
            self._warm()
        finally:
            self._single.network = self._several.network = whole

    def _warm(self) -> None:
        for name in ("slots", "token_slots"):
            self.rows[name].fill_(self._nobody)
        self.rows["top_k"].fill_(1)
        self.rows["places"].fill_(len(self._recent) - 1)
        sizes = self.sizes
        for rows in sorted({sizes.row_bucket(n) for n in range(1, sizes.slots + 1)}, reverse=True):
            for penalised in (False, True):
                self._run(Kind(rows, 0, rows, 1, penalised))
        ends = {min(SMALLEST << shift, sizes.most_rows) for shift in range(4)}
        for chunk in (2 * FEW, FEW, SHORTEST):
            if chunk <= sizes.token_bucket(sizes.batch_tokens):
                self._run(Kind(0, chunk, min(ends), 1, False))
        for rows in ends:  # some of these only come when prompts end beside rows that go on
            self._run(Kind(0, SHORTEST, rows, 1, False))

    # ------------------------------------------------------------------------------------ kernels

    def _run(self, kind: Kind) -> None:
        rows = self.rows
        if (kind.single, kind.chunk) == (1, 0):
            self._single.run(self.last_token, kind.splits)
        elif not kind.chunk:
            count = kind.single
            tokens = Tokens(
                rows["tokens"][:count], rows["slots"][:count], rows["positions"][:count], count
            )
            self._score(self._several.run(tokens, self.last_token))
        else:
            count = kind.single + kind.chunk
            blocks = kind.blocks(self.sizes.slots)
            tokens = Tokens(
                rows["ids"][:count],
                rows["token_slots"][:count],
                rows["token_positions"][:count],
                kind.single,
                tuple(rows[name][:blocks] for name in BLOCK_FIELDS),
            )
            normed = self._several.run(tokens, self.last_token)
            if kind.rows:
                self._score(self._several.pick(normed, rows["outputs"][: kind.rows]))
        if kind.rows:
            self._draw(kind.rows, kind.penalised)

    def _score(self, normed: torch.Tensor) -> None:
        count = len(normed)
        self._several.score(normed, self.logits[:count], self._peaks[:count])

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
            self._vocab, peaks, size, self.results.shape[1],
            num_warps=min(16, max(4, size // 512)),
        )  # fmt: skip

    def _captured(self, run: Callable[[], None]) -> torch.cuda.CUDAGraph:
        """Record ``run`` on a stream of its own; nothing is executed and nobody waits."""
        graph = torch.cuda.CUDAGraph()
        torch.cuda.current_blas_handle()  # a thread's first may not be made while it records
        current, side = torch.cuda.current_stream(), self._side
        assert side is not None
        side.wait_stream(current)
        with torch.cuda.stream(side):
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                run()
            finally:
                graph.capture_end()
        current.wait_stream(side)
        return graph
