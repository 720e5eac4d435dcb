"""The CUDA engine's kernels, one by one against torch, on a processor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cuda_on_numpy  # noqa: F401 - puts numpy where Triton would be
import gluon_on_numpy
import numpy as np
import pytest
import torch
from quantised_models import blocks

from lhama.backends.pytorch import sampler
from lhama.backends.pytorch.cuda import formats
from lhama.backends.pytorch.cuda.kernels import (
    attention,
    experts,
    many_rows,
    mixing,
    one_row,
    prompts,
    sampling,
)
from lhama.backends.pytorch.cuda.matrix import PLAIN, Matrix, Stack

CPU = torch.device("cpu")
TYPES = [*formats.FORMATS, *PLAIN]


def matrix(kind: str, rows: int, columns: int) -> tuple[Matrix, torch.Tensor]:
    """A random matrix and its weights in float32."""
    raw = torch.from_numpy(blocks(np.random.default_rng(columns), kind, rows, columns, 0.05))
    stack = Stack(kind, (rows,), columns, CPU)
    stack.add(raw)
    made = stack.done()
    if made.form is None:
        return made, made.data[:rows].float()
    return made, formats.values(made.form, made.data, made.rows, columns)[:rows]


def vector(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """``x`` as kernels hand it on: bytes with scales, float planes; and what the bytes stand for."""
    size = len(x)
    groups = -(-size // 1024) * 32
    words = torch.zeros(20 * groups, dtype=torch.int32)
    halves = x.view(-1, 2, 16)
    scale = halves.abs().amax(2) / (127 * 128)
    codes = torch.round(halves / scale.unsqueeze(2))
    upper = ((codes + 64) / 128).floor()
    octets = words[: 16 * groups].view(torch.int8).view(2, 2, groups, 4, 4)
    for plane, part in zip(octets, (upper, codes - 128 * upper), strict=True):
        plane[:, : size // 32] = part.transpose(0, 1).unflatten(2, (4, 4)).transpose(2, 3).char()
    floats = words[16 * groups :].view(torch.float32).view(4, groups)
    floats[:2, : size // 32] = scale.T
    floats[2:, : size // 32] = (scale * codes.sum(2)).T
    planes = torch.zeros(2, -(-size // 256) * 128)
    planes[:, : size // 2] = x.view(-1, 2).T
    return words, planes.flatten(), (codes * scale.unsqueeze(2)).flatten()


def same_vector(found: torch.Tensor, wanted: torch.Tensor) -> None:
    """But for the last bit of what lies between two codes."""
    groups = len(wanted) // 20
    codes = [
        128 * upper.int() + lower.int()
        for upper, lower in (
            words[: 16 * groups].view(torch.int8).view(2, -1) for words in (found, wanted)
        )
    ]
    assert (codes[0] - codes[1]).abs().max() <= 1
    floats, awaited = (
        words[16 * groups :].view(torch.float32).view(4, -1) for words in (found, wanted)
    )
    torch.testing.assert_close(floats[:2], awaited[:2])
    assert (floats[2:] - awaited[2:]).abs().le(16 * awaited[:2] + 1e-6).all()  # of 16 codes


def error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((found - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("columns", [256, 1280])
def test_matrix_times_vector(kind: str, columns: int) -> None:
    made, weights = matrix(kind, 48, columns)
    x = torch.randn(columns)
    words, floats, codes = vector(x)
    squares = (x * x).view(-1, 16).sum(1)
    y = torch.full((48,), torch.nan)
    one_row.project[(3,)](
        made.words, made.words, words, floats, squares, 1e-5, y, y, squares, columns, 48, 0,
        made.number, 0, True, False, False, 1, 4, 4, False,
    )  # fmt: skip
    wanted = weights @ (codes if made.form else x) / torch.sqrt((x * x).mean() + 1e-5)
    assert error(y, wanted) < 1e-5


def test_a_kernel_hands_on_what_the_next_one_takes() -> None:
    """``add`` writes residual, vector and partial sums of squares as ``project`` reads them."""
    made, weights = matrix("Q4_K", 64, 256)
    words, floats, codes = vector(torch.randn(256))
    h, norm = torch.randn(64), torch.rand(64) + 0.5
    wanted = h + weights @ codes
    y, yf, squares = torch.zeros(640, dtype=torch.int32), torch.zeros(256), torch.zeros(4)
    one_row.add[(4,)](
        made.words, words, floats, h, h, norm, y, yf, squares, 256, 64, made.number, False,
        True, True, 1, 4, 4, False,
    )  # fmt: skip
    assert error(h, wanted) < 1e-5
    torch.testing.assert_close(squares, (wanted * wanted).view(4, 16).sum(1))
    words, floats, _ = vector(wanted * norm)
    same_vector(y, words)
    torch.testing.assert_close(yf, floats)


def arranged(x: torch.Tensor) -> torch.Tensor:
    """Activations as kernels for several rows take them."""
    rows, columns = x.shape
    blocks = -(-columns // 256)
    y = torch.full((blocks, 8, rows // 8, 32, 8), torch.nan).half()
    many_rows.arrange[(blocks, rows // 8)](x, y, columns, rows, False)
    return y


def test_a_lane_finds_its_activations_together() -> None:
    x = torch.randn(16, 288).half()
    y = arranged(x)
    for row, column in ((0, 0), (3, 5), (15, 255), (9, 287), (12, 130)):
        block, group, part = column // 256, column % 256 // 32, column % 32 // 4
        lane = row % 8 * 4 + group % 4
        assert y[block, part, row // 8, lane, group // 4 * 4 + column % 4] == x[row, column]
    assert y[1].count_nonzero() == x[:, 256:].numel()  # and zeros beyond the last column


@pytest.mark.parametrize("kind", formats.FORMATS)
@pytest.mark.parametrize(("columns", "rows", "parts"), [(512, 3, 2), (1280, 16, 3)])
def test_matrix_times_rows(kind: str, columns: int, rows: int, parts: int) -> None:
    made, weights = matrix(kind, 80, columns)
    padded = max(8, rows)
    x = torch.randn(padded, columns).half()
    x[rows:] = torch.nan  # rows that only fill up: nobody's result may depend on them
    wanted = x[:rows].float() @ weights.T
    x = arranged(x)
    bias = torch.randn(80)
    y = torch.full((parts * rows, 85), torch.nan)
    many_rows.multiply[(2, parts)](
        made.words, x, bias, y, 85, 3, rows, made.rows, columns, made.number, padded, 80, parts,
        True, 64, 2, 4, False,
    )  # fmt: skip
    found = y.view(parts, rows, 85)[:, :, 3:83].sum(0) - bias
    assert error(found, wanted) < 6e-4
    gated = torch.zeros(padded, 80).half()
    many_rows.multiply_gated[(2,)](
        made.words, made.words, x, gated, 0.5, made.rows, columns, made.number, False, padded, 64,
        2, 4, False,
    )  # fmt: skip
    silu = torch.nn.functional.silu(wanted) * wanted * 0.5
    assert error(gated[:rows].float(), silu) < 2e-3
    plain = torch.zeros(80, columns).half()
    many_rows.dequantise[(5, -(-columns // 256))](
        made.words, plain, made.rows, columns, made.number, 80, 16, 1
    )
    assert error(plain.float(), weights) < 6e-4


def test_logits_and_their_peaks() -> None:
    made, weights = matrix("Q6_K", 77, 256)
    x = torch.randn(8, 256).half()
    logits, peaks = torch.full((5, 77), torch.nan), torch.full((5, 5), torch.nan)
    many_rows.multiply_scores[(2,)](
        made.words,
        arranged(x),
        logits,
        peaks,
        5,
        made.rows,
        256,
        77,
        made.number,
        30.0,
        8,
        64,
        1,
        4,
        False,
    )
    wanted = 30 * torch.tanh(x[:5].float() @ weights.T / 30)
    assert error(logits, wanted) < 1e-3
    padded = torch.nn.functional.pad(logits, (0, 3), value=-torch.inf)
    torch.testing.assert_close(peaks, padded.view(5, 5, 16).amax(2))


def chosen_of(logits: torch.Tensor, used: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What ``choose`` makes of logits [rows, experts]."""
    rows, count = logits.shape
    chosen, shares = torch.full((rows, used), -1).int(), torch.full((rows, used), torch.nan)
    up = covering(count)
    mixing.choose[(rows,)](logits, chosen, shares, count, count, up, used, False)
    return chosen, shares


def test_the_best_experts_are_chosen() -> None:
    logits = torch.randn(5, 10)
    logits[1, [3, 7]] = 4.0  # equals: the first goes before
    logits[2] = torch.nan
    logits[3, 4:] = -torch.inf
    chosen, shares = chosen_of(logits, 3)
    for row in (0, 1, 3, 4):
        wanted, at = logits[row].topk(3)
        assert row == 1 or torch.equal(chosen[row].long(), at)
        torch.testing.assert_close(shares[row], wanted.softmax(0))
    assert chosen[1, :2].tolist() == [3, 7]
    assert chosen[2].tolist() == [0, 1, 2]
    assert shares[2].isnan().all()


def test_experts_find_their_pairs() -> None:
    """Over several steps of the search; rows that only fill up are left out."""
    chosen, _ = chosen_of(torch.randn(50, 6), 2)
    slots = torch.arange(50).int() % 4
    members, sizes = torch.full((6, 50), -1).int(), torch.full((6,), -1).int()
    mixing.group[(6,)](chosen, slots, members, sizes, 100, 2, 3, 50, 32, False)
    for expert in range(6):
        meant = (chosen == expert) & (slots != 3)[:, None]
        wanted = meant.flatten().nonzero().flatten().tolist()
        assert members[expert, : sizes[expert]].tolist() == wanted


def test_the_router_is_as_exact_as_float32() -> None:
    x, router = torch.randn(19, 96).half(), torch.randn(16, 96)
    logits = torch.full((19, 16), torch.nan)
    mixing.route[(2, 1)](x, router, logits, 19, 96, 16, 16, 16, 32, False)
    assert error(logits, x.float() @ router.T) < 1e-6


@pytest.mark.parametrize(("kind", "columns"), [("Q4_1", 288), ("Q6_K", 256), ("Q8_0", 288)])
def test_experts_times_their_tokens(kind: str, columns: int) -> None:
    """An expert with more tokens than are computed at once, one with none, rows that do not fill
    a tile: by codes, and written out."""
    count, used, rows, tokens = 4, 2, 80, 20
    blocks = -(-columns // 256)
    made, weights = matrix(kind, count * rows, columns)
    weights = weights.view(count, rows, columns)
    logits = torch.randn(tokens, count) + torch.tensor([9.0, 0.0, 0.0, -9.0])
    chosen, shares = chosen_of(logits, used)
    members, sizes = torch.zeros(count, tokens).int(), torch.zeros(count).int()
    slots = torch.zeros(tokens).int()
    pairs = tokens * used
    mixing.group[(count,)](chosen, slots, members, sizes, pairs, used, 1, tokens, 1024, False)
    assert sizes.tolist()[::3] == [tokens, 0]

    x = torch.randn(tokens, columns).half()
    each = torch.full((tokens, blocks * 256), torch.nan).half()
    experts.arrange_each[(tokens, blocks)](x, each, columns, 2, False)
    gated = torch.full((tokens, used, rows), torch.nan).half()
    tile = (8, 64, 2, 2, False)
    experts.multiply_gated_experts[(2, count)](
        made.words, made.words, each, members, sizes, gated, 0.5, made.rows, rows, columns,
        made.number, False, used, tokens, *tile,
    )  # fmt: skip
    own = torch.einsum("tnrc,tc->tnr", weights[chosen.long()], x.float())
    assert error(gated.float(), torch.nn.functional.silu(own) * own * 0.5) < 2e-3
    groups = torch.full((tokens, used, rows), torch.nan).half()
    floats = weights.half().contiguous()
    mixing.multiply_groups[(2, count)](
        x, floats, members, sizes, shares, groups, 0, rows, columns, used, tokens, False, 16, 64, 64
    )
    assert error(groups.float(), own) < 1e-3

    x = torch.randn(pairs, columns).half()
    each = torch.full((pairs, blocks * 256), torch.nan).half()
    experts.arrange_each[(pairs, blocks)](x, each, columns, 2, False)
    own = torch.einsum("tnrc,tnc->ntr", weights[chosen.long()], x.float().view(tokens, used, -1))
    own = own * shares.T.unsqueeze(2)
    parts = torch.full((2, used, tokens, rows), torch.nan)
    experts.multiply_experts[(2, count)](
        made.words, each, members, sizes, shares, parts[0], tokens, made.rows, rows, columns,
        made.number, used, tokens, *tile,
    )  # fmt: skip
    mixing.multiply_groups[(2, count)](
        x, floats, members, sizes, shares, parts[1], tokens, rows, columns, used, tokens, True, 16,
        64, 64,
    )  # fmt: skip
    assert error(parts[0], own) < 1e-3
    assert error(parts[1], own) < 1e-3


def covering(number: int) -> int:
    return 1 << (number - 1).bit_length()


@dataclass(frozen=True)
class Case:
    """Rows with one token each, at ``positions``, over scattered pages of random numbers."""

    heads: int
    kv_heads: int
    dim: int
    rotated: int
    positions: tuple[int, ...]
    window: int = 0
    softcap: float = 0.0
    norm: bool = False
    strength: float = 1.0
    """Of queries and keys: scores far apart must not become infinite shares."""
    far: bool = False
    """All pages lie where 32 bits do not reach."""


CASES = (
    Case(4, 2, 32, 32, (0, 1, 63, 64, 65, 600)),
    Case(6, 2, 64, 64, (300, 3), norm=True),
    Case(3, 1, 96, 64, (130, 40), softcap=30.0),
    Case(9, 1, 64, 64, (129,), window=100, far=True),
    Case(4, 1, 256, 256, (150, 64, 20), window=100),
    Case(4, 2, 128, 128, (700, 1100)),
    Case(4, 2, 64, 64, (129, 65, 300), strength=12.0),
)
PAGES = 18


class Scene:
    """A case's tensors, and what attention over them must give."""

    def __init__(self, case: Case) -> None:
        torch.manual_seed(1)
        rows, dim = len(case.positions), case.dim
        self.case = case
        self.cos, self.sin = torch.randn(2, PAGES * 64, case.rotated // 2)
        self.q_norm, self.k_norm = torch.rand(2, dim) + 0.5
        self.qkv = torch.randn(rows, (case.heads + 2 * case.kv_heads) * dim)
        self.qkv[:, : (case.heads + case.kv_heads) * dim] *= case.strength
        lines = torch.full((2, rows * PAGES, case.kv_heads, 64, dim), torch.nan).half()
        self.keys, self.values = lines
        self.tables = torch.randperm(rows * PAGES).view(rows, PAGES).int()
        beyond = 2**31 // (case.kv_heads * 64 * dim) if case.far else 0
        places = [gluon_on_numpy.pointer(part) + -beyond * part[0].numel() for part in lines]
        self.caches = (*places, *places, self.tables + beyond)
        self.slots = torch.arange(rows).int()
        self.positions = torch.tensor(case.positions).int()
        self.past = torch.randn(2, rows, case.kv_heads, max(case.positions) + 1, dim).half()
        for row, position in enumerate(case.positions):
            for at in range(position):
                page = self.tables[row, at // 64]
                lines[:, page, :, at % 64] = self.past[:, row, :, at]

    @property
    def common(self) -> tuple[torch.Tensor | float, ...]:
        return self.qkv, self.cos, self.sin, self.q_norm, self.k_norm, 1e-5

    def turned(self, x: torch.Tensor, weight: torch.Tensor, at: int) -> torch.Tensor:
        if self.case.norm:
            x = torch.nn.functional.rms_norm(x, (self.case.dim,), weight, 1e-5)
        half = self.case.rotated // 2
        low, high, rest = x.split((half, half, self.case.dim - 2 * half), -1)
        c, s = self.cos[at], self.sin[at]
        return torch.cat((low * c - high * s, high * c + low * s, rest), -1)

    def wanted(self, row: int) -> torch.Tensor:
        """[heads · dim]."""
        case, at = self.case, self.case.positions[row]
        heads = self.qkv[row].view(-1, case.dim)
        q, k, v = heads.split((case.heads, case.kv_heads, case.kv_heads))
        new = (self.turned(k, self.k_norm, at).half(), v.half())
        first = max(0, at - case.window + 1) if case.window else 0
        keys, values = (
            torch.cat((past[row, :, :at], one.unsqueeze(1)), 1)[:, first:].float()
            for past, one in zip(self.past, new, strict=True)
        )
        group = case.heads // case.kv_heads
        keys, values = keys.repeat_interleave(group, 0), values.repeat_interleave(group, 0)
        q = self.turned(q, self.q_norm, at)
        scores = torch.einsum("hd,htd->ht", q, keys) * case.dim**-0.5
        if case.softcap:
            scores = case.softcap * torch.tanh(scores / case.softcap)
        return torch.einsum("ht,htd->hd", scores.softmax(-1), values).flatten()

    def check_cached(self, row: int) -> None:
        """The new token's key and value lie in their page."""
        case, at = self.case, self.case.positions[row]
        _, k, v = self.qkv[row].view(-1, case.dim).split((case.heads, case.kv_heads, case.kv_heads))
        page = self.tables[row, at // 64]
        wanted = self.turned(k, self.k_norm, at).half()
        torch.testing.assert_close(self.keys[page, :, at % 64], wanted)
        torch.testing.assert_close(self.values[page, :, at % 64], v.half())


def near(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found.float(), wanted, atol=3e-3, rtol=1e-2)


@pytest.mark.parametrize("case", [case for case in CASES if case.dim <= 128])
def test_attention_of_one_row(case: Case) -> None:
    """Normed, turned, cached, attended and put together from splits in one kernel."""
    scene = Scene(case)
    size = case.heads * case.dim
    parts = torch.full((case.heads, 16, case.dim), torch.nan)
    states, tickets = torch.zeros(case.heads, 16, 2), torch.zeros(case.kv_heads).int()
    for row in range(len(case.positions)):
        y, yf = torch.zeros(-(-size // 1024) * 640).int(), torch.zeros(-(-size // 256) * 256)
        attention.attend[(case.kv_heads, 16)](
            scene.qkv[row], *scene.common[1:], *scene.caches[:2], scene.caches[4],
            scene.slots[row:], scene.positions[row:], parts, states, tickets, y, yf, case.heads,
            case.kv_heads, case.dim, case.rotated, covering(case.heads // case.kv_heads),
            max(32, covering(case.dim)), case.dim**-0.5, case.norm, case.window, case.softcap,
            PAGES, True, True, case.far, 2, False,
        )  # fmt: skip
        wanted = scene.wanted(row)
        found = yf.view(2, -1)[:, : size // 2].T.flatten()
        near(found, wanted)
        words, _, _ = vector(found)
        same_vector(y, words)
        scene.check_cached(row)
    assert not tickets.any()


@pytest.mark.parametrize("case", CASES)
def test_attention_of_several_rows(case: Case) -> None:
    """First keys, values and queries are spread, from two parts; then every row attends."""
    scene = Scene(case)
    rows, heads, dim = len(case.positions), case.heads, case.dim
    queries, y = torch.zeros(2, rows, heads * dim).half()
    parts = torch.full((rows, heads, 16, dim), torch.nan)
    states, tickets = torch.zeros(rows, heads, 16, 2), torch.zeros(rows, case.kv_heads).int()
    width = max(32, covering(dim))
    caches = scene.caches
    halved = torch.cat((scene.qkv * 0.25, scene.qkv * 0.75))
    attention.spread[(rows,)](
        halved, *scene.common[1:], *caches, scene.slots, scene.positions, queries,
        scene.qkv.numel(), heads, case.kv_heads, dim, case.rotated, covering(heads),
        covering(case.kv_heads), width, dim**-0.5, case.norm, 2, PAGES, False, case.far, 4, False,
    )  # fmt: skip
    prompts.attend_rows[(rows, case.kv_heads, 16)](
        queries, *caches, scene.slots, scene.positions, parts, states, tickets, y, heads,
        case.kv_heads, dim, width, 16, case.window, case.softcap, PAGES, False, case.far, False,
    )  # fmt: skip
    for row in range(rows):
        near(y[row], scene.wanted(row))
        scene.check_cached(row)
    assert not tickets.any()


def test_attention_of_a_prompts_chunk() -> None:
    """70 tokens from position 40 on, in blocks of 64, over a window; each as if it came alone."""
    case = Case(4, 2, 64, 64, tuple(range(40, 110)), window=50, far=True)
    scene = Scene(case)
    count, heads, dim = len(case.positions), case.heads, case.dim
    # All rows are one slot's: what is past for a row came with the rows before.
    slots = torch.zeros(count).int()
    queries, y = torch.zeros(2, count, heads * dim).half()
    attention.spread[(count,)](
        *scene.common, *scene.caches, slots, scene.positions, queries, 0, heads, case.kv_heads, dim,
        case.rotated, 4, 2, 64, dim**-0.5, False, 1, PAGES, False, case.far, 4, False,
    )  # fmt: skip
    for row, at in enumerate(case.positions):
        page = scene.tables[0, at // 64]
        scene.past[0, :, :, at] = scene.keys[page, :, at % 64]
        scene.past[1, :, :, at] = scene.values[page, :, at % 64]
        scene.past[:, row, :, :40] = scene.past[:, 0, :, :40]
    blocks = torch.tensor([[0, 0, 0], [0, 64, 0], [40, 104, 0], [64, 6, 0]]).int()
    prompts.attend_chunks[(3, heads)](
        queries, *scene.caches, *blocks, y, heads, case.kv_heads, dim, 64, case.window, 0.0, PAGES,
        False, case.far, 64, False,
    )  # fmt: skip
    for row in range(count):
        near(y[row], scene.wanted(row))


def settings(rows: Sequence[tuple[float, int, float, float]]) -> list[torch.Tensor]:
    heat, top_k, top_p, min_p = zip(*rows, strict=True)
    return [torch.tensor(heat), torch.tensor(top_k).int(), torch.tensor(top_p), torch.tensor(min_p)]


@pytest.mark.parametrize(("vocab", "crowded"), [(300, False), (5000, False), (20000, True)])
def test_draws_are_the_general_samplers(vocab: int, crowded: bool) -> None:
    """``crowded``: the best tokens lie such that a shortcut to them finds far too many."""
    torch.manual_seed(vocab)
    heat, top_k, top_p, min_p = settings(
        [
            (0.8, 40, 0.9, 0.0),
            (0.0, 40, 0.9, 0.0),
            (1.5, 64, 1.0, 0.05),
            (0.7, 1, 0.5, 0.0),
            (1.0, 20, 0.0, 0.0),
            (1.0, 64, 0.95, 0.1),
        ]
    )
    rows, runs = len(heat), -(-vocab // 16)
    logits, number = torch.randn(rows, vocab) * 3, torch.rand(rows)
    if crowded:
        logits.view(rows, runs, 16)[..., :4] += 30
    logits[3, 7] = torch.nan
    padded = torch.nn.functional.pad(
        logits.nan_to_num(torch.inf), (0, runs * 16 - vocab), value=-torch.inf
    )
    peaks = padded.view(rows, runs, 16).amax(2)
    slots = torch.tensor([3, 1, 2, 0, 5, 4]).int()
    last, recent = torch.zeros(6).int(), torch.zeros(60, dtype=torch.int64)
    results = torch.full((4, rows), -7).int()
    scratch = torch.zeros(rows, 256).int()
    ring, places = torch.tensor([2]).int(), slots * 10 + 3
    sampling.draw[(rows,)](
        logits, peaks, scratch, slots, heat, top_k, top_p, min_p, number, places, ring, last,
        recent, results, vocab, runs, covering(runs), rows,
    )  # fmt: skip
    columns = torch.stack((top_k.float(), torch.ones(rows), top_p, min_p, heat, number), 1)
    group = sampler.Group(torch.arange(rows), 64, columns, False)
    best, ids = logits.nan_to_num(-99.0).topk(64)
    wanted = ids.gather(1, sampler.pick(best, group)).squeeze(1).int()
    faulty = torch.arange(rows) == 3
    assert results[2].tolist() == torch.where(faulty, -1, wanted).tolist()
    assert (results[[0, 1, 3]] == -7).all()
    assert last[slots[~faulty].long()].tolist() == wanted[~faulty].tolist()
    assert recent[places[~faulty].long()].tolist() == wanted[~faulty].tolist()


def test_equal_logits_do_not_crowd_out_a_better_one() -> None:
    """As of tokens that were never trained: more of them than there is room for."""
    vocab, runs = 5008, 313
    logits = torch.full((1, vocab), -5.0)
    logits[0, :3200:16] = 1.0
    logits[0, 4990] = 3.0
    one, zero = torch.ones(1).int(), torch.zeros(1)
    results = torch.zeros(1, 1).int()
    sampling.draw[(1,)](
        logits, logits.view(1, runs, 16).amax(2), torch.zeros(1, 256).int(), one - 1, zero, one,
        zero, zero, zero, one - 1, one - 1, one.clone(), torch.zeros(1, dtype=torch.int64), results,
        vocab, runs, covering(runs), 1,
    )  # fmt: skip
    assert results.item() == 4990


def test_penalties_lower_logits_and_peaks() -> None:
    torch.manual_seed(0)
    vocab, ring = 100, 8
    logits = torch.randn(2, vocab)
    before = logits.clone()
    peaks = torch.nn.functional.pad(logits, (0, 12), value=-torch.inf).view(2, 7, 16).amax(2)
    recent = torch.tensor([5, 5, 99, 7, 5, 0, 0, 0] + [0] * 8)
    numbers = [torch.tensor([x, x]) for x in (1.3, 0.5, 0.25)]
    sampling.penalise[(2,)](
        logits, peaks, recent, torch.tensor([0, 1]).int(), torch.tensor([5, 5]).int(),
        torch.tensor([4, 0]).int(), *numbers, vocab, 7, ring,
    )  # fmt: skip
    for token, count in ((5, 2), (99, 1), (7, 1)):  # the last four of five
        x = before[0, token]
        before[0, token] = (x * 1.3 if x <= 0 else x / 1.3) - count * 0.25 - 0.5
    torch.testing.assert_close(logits, before)
    padded = torch.nn.functional.pad(before, (0, 12), value=-torch.inf)
    torch.testing.assert_close(peaks, padded.view(2, 7, 16).amax(2))
