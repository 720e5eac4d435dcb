"""The CUDA engine's kernels, one by one against torch, on a processor."""

from __future__ import annotations

from collections.abc import Sequence

import cuda_on_numpy  # noqa: F401 - puts numpy where Triton would be
import numpy as np
import pytest
import torch
from quantised_models import blocks

from lhama.backends.pytorch import sampler
from lhama.backends.pytorch.cuda import formats
from lhama.backends.pytorch.cuda.kernels import attention, many_rows, one_row, sampling
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
    """``x`` as kernels hand it on: int8 with scales, float planes; and what the int8 stand for."""
    size = len(x)
    groups = -(-size // 1024) * 32
    words = torch.zeros(12 * groups, dtype=torch.int32)
    halves = x.view(-1, 2, 16)
    scale = halves.abs().amax(2) / 127
    codes = torch.round(halves / scale.unsqueeze(2))
    octets = words[: 8 * groups].view(torch.int8).view(2, groups, 4, 4)
    octets[:, : size // 32] = codes.transpose(0, 1).unflatten(2, (4, 4)).transpose(2, 3).char()
    floats = words[8 * groups :].view(torch.float32).view(4, groups)
    floats[:2, : size // 32] = scale.T
    floats[2:, : size // 32] = (scale * codes.sum(2)).T
    planes = torch.zeros(2, -(-size // 256) * 128)
    planes[:, : size // 2] = x.view(-1, 2).T
    return words, planes.flatten(), (codes * scale.unsqueeze(2)).flatten()


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
    y, yf, squares = torch.zeros(384, dtype=torch.int32), torch.zeros(256), torch.zeros(4)
    one_row.add[(4,)](
        made.words, words, floats, h, h, norm, y, yf, squares, 256, 64, made.number, False,
        True, True, 1, 4, 4, False,
    )  # fmt: skip
    assert error(h, wanted) < 1e-5
    torch.testing.assert_close(squares, (wanted * wanted).view(4, 16).sum(1))
    words, floats, _ = vector(wanted * norm)
    torch.testing.assert_close(y[256:].view(torch.float32), words[256:].view(torch.float32))
    assert (y[:256].view(torch.int8) - words[:256].view(torch.int8)).abs().max() <= 1
    torch.testing.assert_close(yf, floats)


@pytest.mark.parametrize("kind", formats.FORMATS)
@pytest.mark.parametrize(("columns", "rows", "parts"), [(512, 3, 2), (1280, 16, 3)])
def test_matrix_times_rows(kind: str, columns: int, rows: int, parts: int) -> None:
    made, weights = matrix(kind, 80, columns)
    padded = max(8, rows)
    x = torch.randn(padded, columns).half()
    x[rows:] = torch.nan  # rows that only fill up: nobody's result may depend on them
    wanted = x[:rows].float() @ weights.T
    bias = torch.randn(80)
    y = torch.full((parts * rows, 85), torch.nan)
    many_rows.multiply[(2, parts)](
        made.words, x, bias, y, 85, 3, rows, made.rows, columns, made.number, padded, 80, parts,
        True, 64, 4, False,
    )  # fmt: skip
    found = y.view(parts, rows, 85)[:, :, 3:83].sum(0) - bias
    assert error(found, wanted) < 6e-4
    gated = torch.zeros(padded, 80).half()
    many_rows.multiply_gated[(2,)](
        made.words, made.words, x, gated, 0.5, made.rows, columns, made.number, False, padded, 64,
        4, False,
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
        made.words, x, logits, peaks, 5, made.rows, 256, 77, made.number, 30.0, 8, 64, 4, False
    )
    wanted = 30 * torch.tanh(x[:5].float() @ weights.T / 30)
    assert error(logits, wanted) < 1e-3
    padded = torch.nn.functional.pad(logits, (0, 3), value=-torch.inf)
    torch.testing.assert_close(peaks, padded.view(5, 5, 16).amax(2))


def covering(number: int) -> int:
    return 1 << (number - 1).bit_length()


@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim", "rotated", "positions", "window", "softcap", "norm"),
    [
        (4, 2, 32, 32, (0, 1, 31, 32, 33, 600), 0, 0.0, False),
        (6, 2, 64, 64, (200, 3), 0, 0.0, True),
        (3, 1, 96, 64, (130, 40), 0, 30.0, False),
        (4, 1, 256, 256, (150, 64, 20), 100, 0.0, False),
        (4, 2, 128, 128, (700,), 0, 0.0, False),
    ],
)
def test_attention(
    heads: int,
    kv_heads: int,
    dim: int,
    rotated: int,
    positions: tuple[int, ...],
    window: int,
    softcap: float,
    norm: bool,
) -> None:
    """Rows of different lengths in scattered pages, each against plain attention."""
    torch.manual_seed(1)
    rows, pages = len(positions), 12
    cos, sin = torch.randn(2, pages * 64, rotated // 2)
    q_norm, k_norm = torch.rand(2, dim) + 0.5
    qkv = torch.randn(rows, (heads + 2 * kv_heads) * dim)
    keys, values = torch.full((2, rows * pages, kv_heads, 64, dim), torch.nan).half()
    tables = torch.randperm(rows * pages).view(rows, pages).int()
    past = torch.randn(2, rows, kv_heads, max(positions) + 1, dim).half()
    for row, position in enumerate(positions):
        for at in range(position):
            page = tables[row, at // 64]
            keys[page, :, at % 64], values[page, :, at % 64] = past[:, row, :, at]
    slots = torch.arange(rows).int()
    parts, states = torch.full((rows, heads, 16, dim), torch.nan), torch.zeros(rows, heads, 16, 2)
    tickets = torch.zeros(rows, kv_heads).int()
    y = torch.zeros(rows, heads * dim).half()
    attention.attend[(rows, kv_heads, 16)](
        qkv, cos, sin, q_norm, k_norm, 1e-5, keys, values, keys, values, tables, slots,
        torch.tensor(positions).int(), parts, states, tickets, y, y, y, heads, kv_heads, dim,
        rotated, covering(heads // kv_heads), covering(dim), dim**-0.5, norm, window, softcap,
        pages, False, False, False, True, 4, False,
    )  # fmt: skip
    assert not tickets.any()

    def turned(x: torch.Tensor, weight: torch.Tensor, at: int) -> torch.Tensor:
        if norm:
            x = torch.nn.functional.rms_norm(x, (dim,), weight, 1e-5)
        low, high, rest = x.split((rotated // 2, rotated // 2, dim - rotated), -1)
        c, s = cos[at], sin[at]
        return torch.cat((low * c - high * s, high * c + low * s, rest), -1)

    for row, at in enumerate(positions):
        q, k, v = qkv[row].view(-1, dim).split((heads, kv_heads, kv_heads))
        new_k = turned(k, k_norm, at).half()
        torch.testing.assert_close(keys[tables[row, at // 64], :, at % 64], new_k)
        all_k = torch.cat((past[0, row, :, :at], new_k.unsqueeze(1)), 1).float()
        all_v = torch.cat((past[1, row, :, :at], v.half().unsqueeze(1)), 1).float()
        first = max(0, at - window + 1) if window else 0
        all_k, all_v = (
            x[:, first:].repeat_interleave(heads // kv_heads, 0) for x in (all_k, all_v)
        )
        scores = torch.einsum("hd,htd->ht", turned(q, q_norm, at), all_k) * dim**-0.5
        if softcap:
            scores = softcap * torch.tanh(scores / softcap)
        wanted = torch.einsum("ht,htd->hd", scores.softmax(-1), all_v).flatten()
        torch.testing.assert_close(y[row].float(), wanted, atol=2e-3, rtol=1e-2)


def settings(rows: Sequence[tuple[float, int, float, float]]) -> list[torch.Tensor]:
    heat, top_k, top_p, min_p = zip(*rows, strict=True)
    return [torch.tensor(heat), torch.tensor(top_k).int(), torch.tensor(top_p), torch.tensor(min_p)]


@pytest.mark.parametrize("vocab", [300, 5000])
def test_draws_are_the_general_samplers(vocab: int) -> None:
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
    logits[3, 7] = torch.nan
    padded = torch.nn.functional.pad(
        logits.nan_to_num(torch.inf), (0, runs * 16 - vocab), value=-torch.inf
    )
    peaks = padded.view(rows, runs, 16).amax(2)
    slots = torch.tensor([3, 1, 2, 0, 5, 4]).int()
    last, recent = torch.zeros(6).int(), torch.zeros(60, dtype=torch.int64)
    results = torch.full((4, rows), -7).int()
    scratch = torch.zeros(rows, 3 * 64).int()
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
