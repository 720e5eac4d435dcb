"""Sampling against llama.cpp's whole chain and against the formulas written out."""

from __future__ import annotations

import ctypes
import math
from collections import Counter
from collections.abc import Sequence

import pytest

pytest.importorskip("llama_cpp")

from lhama.backends.llamacpp.library import L, np
from lhama.backends.llamacpp.pool import SamplerPool
from lhama.backends.llamacpp.sampling import (
    Penalties,
    RowError,
    Sampler,
    logprobs,
    top,
)
from lhama.plugins.backend import Row, Sampling

VOCAB = 20_003  # no multiple of anything
WORDS = ("not a number", "no token", "without a mask", "never admitted")


def row(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, VOCAB).astype(np.float32)


def whole_chain(
    sampling: Sampling,
    history: Sequence[int],
    rows: Sequence[np.ndarray],
    allowed: np.ndarray | None = None,
) -> list[int]:
    """llama-server's chain over every token of the vocabulary. ``allowed``: bool [VOCAB], applied
    as it applies a grammar: first, and only where a token drawn without it is forbidden."""
    chain = L.llama_sampler_chain_init(L.llama_sampler_chain_default_params())
    for stage in (
        L.llama_sampler_init_penalties(
            VOCAB,
            sampling.repeat_last_n,
            sampling.repeat_penalty,
            sampling.frequency_penalty,
            sampling.presence_penalty,
        ),
        L.llama_sampler_init_top_k(sampling.top_k),
        L.llama_sampler_init_typical(sampling.typical_p, 0),
        L.llama_sampler_init_top_p(sampling.top_p, 0),
        L.llama_sampler_init_min_p(sampling.min_p, 0),
        L.llama_sampler_init_temp_ext(sampling.temperature, 0.0, 1.0),
        L.llama_sampler_init_dist(sampling.seed),
    ):
        L.llama_sampler_chain_add(chain, stage)
    for token in history:
        L.llama_sampler_accept(chain, token)
    tokens = []
    data = (L.llama_token_data * VOCAB)()

    def draw(logits: np.ndarray) -> int:
        view = np.ctypeslib.as_array(data)
        view["id"], view["logit"], view["p"] = np.arange(VOCAB), logits, 0
        array = L.llama_token_data_array(
            data=ctypes.cast(data, L.llama_token_data_p), size=VOCAB, selected=-1, sorted=False
        )
        L.llama_sampler_apply(chain, ctypes.byref(array))
        return int(array.data[array.selected].id)

    for logits in rows:
        token = draw(logits)
        if allowed is not None and not allowed[token]:
            token = draw(np.where(allowed, logits, -np.inf))
        tokens.append(token)
        L.llama_sampler_accept(chain, token)
    L.llama_sampler_free(chain)
    return tokens


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(seed=7),
        Sampling(temperature=1.5, top_k=5, top_p=1.0, seed=8),
        Sampling(temperature=0.0, seed=9),
        Sampling(temperature=0.0, repeat_penalty=1.4, seed=9),
        Sampling(temperature=1.0, top_k=0, top_p=0.5, seed=10),
        Sampling(temperature=2.0, top_k=0, top_p=1.0, seed=11),
        Sampling(temperature=0.9, top_k=60, top_p=0.97, min_p=0.05, typical_p=0.8, seed=12),
        Sampling(temperature=0.0, typical_p=0.3, seed=13),
        Sampling(temperature=1.3, top_k=1000, top_p=0.99, seed=14),
        Sampling(
            temperature=1.1,
            top_k=40,
            repeat_penalty=1.3,
            frequency_penalty=0.4,
            presence_penalty=0.7,
            repeat_last_n=16,
            seed=15,
        ),
        Sampling(temperature=1.0, repeat_penalty=1.2, repeat_last_n=0, seed=16),
        Sampling(temperature=1.0, top_k=1, seed=17),
    ],
    ids=str,
)
def test_tokens_are_those_of_the_whole_chain(sampling: Sampling) -> None:
    rows = [row(seed) for seed in range(30)]
    history = [int(values.argmax()) for values in rows] * 2
    sampler = Sampler(sampling, history, VOCAB, 4096)
    tokens = [sampler.sample(values.copy())[0] for values in rows]
    sampler.close()
    assert tokens == whole_chain(sampling, history, rows)


def test_the_same_seed_gives_the_same_tokens_another_seed_others() -> None:
    def draw(seed: int) -> list[int]:
        sampler = Sampler(Sampling(temperature=1.5, seed=seed), (), VOCAB, 4096)
        return [sampler.sample(row(i))[0] for i in range(30)]

    assert draw(5) == draw(5) != draw(6)
    assert draw(0xFFFFFFFF) == draw(0xFFFFFFFF)  # which llama.cpp takes for "any"


@pytest.mark.parametrize("last_n", [1, 7, 64, -1])
def test_penalties_follow_the_formula(last_n: int) -> None:
    rng = np.random.default_rng(abs(last_n))
    history = [int(token) for token in rng.integers(0, 40, 100)]
    sampling = Sampling(
        repeat_last_n=last_n, repeat_penalty=1.3, frequency_penalty=0.25, presence_penalty=0.5
    )
    penalties = Penalties.of(sampling, history, 90)
    assert penalties is not None
    seen = list(history)
    for step in range(5):
        values = row(step)
        expected = values.copy()
        for token, count in Counter(seen[-(last_n if last_n > 0 else 90) :]).items():
            logit = values[token]
            logit = logit * 1.3 if logit <= 0 else logit / 1.3
            expected[token] = logit - count * 0.25 - 0.5
        penalties.apply(values)
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)
        penalties.accept(step)
        seen.append(step)


def test_penalties_that_change_nothing_are_none() -> None:
    assert Penalties.of(Sampling(), [1, 2], 10) is None
    assert Penalties.of(Sampling(repeat_penalty=1.5, repeat_last_n=0), [1, 2], 10) is None


@pytest.mark.parametrize("count", [1, 20, 312, 313, 5000])
def test_top_is_the_sorted_head(count: int) -> None:
    for values in (row(1), np.round(row(2)), np.zeros(VOCAB, np.float32)):
        expected = np.argsort(-values, kind="stable")[:count]
        assert top(values, count).tolist() == expected.tolist()


def test_logprobs_are_a_log_softmax_in_falling_order() -> None:
    values = row(3)
    best = int(values.argmax())
    own, alternatives = logprobs(values, best, VOCAB)
    assert alternatives[0] == (best, own)
    shares = [math.exp(value) for _, value in alternatives]
    assert sum(shares) == pytest.approx(1.0, abs=1e-4)
    assert shares == sorted(shares, reverse=True)
    assert logprobs(values, best, 0) == (own, ())


def test_logprobs_are_those_of_llama_cpps_server() -> None:
    """Its loop, number by number: probabilities of 50,000 tokens lose the small ones in 32 bits."""
    row = np.random.default_rng(1).normal(0, 2, 50_000).astype(np.float32)
    row[7] = 9.0
    total = np.float32(0)
    for logit in sorted(row.tolist(), reverse=True):
        total += np.float32(math.exp(np.float32(logit) - np.float32(9)))
    own, [(_, second)] = logprobs(row, 7, 1)[0], logprobs(row, 7, 2)[1][1:]
    assert own == np.float32(math.log(np.float32(1) / total))
    gap = np.float32(np.sort(row)[-2] - np.float32(9))
    assert second == np.float32(math.log(np.float32(math.exp(gap)) / total))
    exact = -math.log(np.exp(row.astype(np.float64) - 9).sum())
    assert 1e-6 < abs(own - exact) < 1e-3, "32 bits make a difference"


def test_a_token_without_probability_has_a_logarithm() -> None:
    row = np.array([0.0, -200.0], np.float32)
    assert logprobs(row, 1, 0)[0] == pytest.approx(-200)


def test_logprobs_are_of_the_raw_logits() -> None:
    values = row(4)
    best = int(values.argmax())
    expected = logprobs(values, best, 3)
    sampling = Sampling(temperature=0.0, repeat_penalty=50.0)
    sampler = Sampler(sampling, [best], VOCAB, 100, logprobs=3)
    token, own, alternatives = sampler.sample(values.copy())
    assert token != best
    assert alternatives == expected[1]
    assert own == pytest.approx(logprobs(values, token, 0)[0])
    assert Sampler(sampling, [], VOCAB, 100).sample(values.copy())[1:] == (None, ())


@pytest.mark.parametrize("sampling", [Sampling(temperature=0), Sampling(), Sampling(top_k=0)])
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_row_that_is_no_number_is_an_error(sampling: Sampling, poison: float) -> None:
    for place in (0, 4711, VOCAB - 1):
        values = row(5)
        values[place] = poison
        with pytest.raises(RowError, match="not a number"):
            Sampler(sampling, (), VOCAB, 100).sample(values)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(seed=7),
        Sampling(temperature=0),
        Sampling(temperature=0, repeat_penalty=1.4),
        Sampling(temperature=1.5, top_k=1000, top_p=0.99, seed=8),
        Sampling(temperature=0.9, top_k=60, min_p=0.05, repeat_penalty=1.2, seed=12),
    ],
    ids=str,
)
@pytest.mark.parametrize("share", [0.9, 0.02])
def test_a_mask_is_looked_at_as_llama_cpp_does(sampling: Sampling, share: float) -> None:
    """Freely at first, so that a seed gives the same answer where the model keeps to the grammar
    by itself."""
    allowed = np.random.default_rng(3).random(VOCAB) < share
    mask = np.packbits(allowed, bitorder="little").tobytes()
    sampler = Sampler(sampling, (1, 2, 3), VOCAB, 100)
    rows = [row(seed) for seed in range(30)]
    expected = whole_chain(sampling, (1, 2, 3), rows, allowed)
    assert [sampler.sample(values.copy(), mask)[0] for values in rows] == expected


@pytest.mark.parametrize("sampling", [Sampling(temperature=0), Sampling(), Sampling(top_k=0)])
def test_a_mask_forbids(sampling: Sampling) -> None:
    allowed = [3, 999, VOCAB - 1]
    bits = np.zeros(VOCAB, np.uint8)
    bits[allowed] = 1
    mask = np.packbits(bits, bitorder="little").tobytes()
    sampler = Sampler(sampling, (), VOCAB, 100)
    assert {sampler.sample(row(i), mask)[0] for i in range(40)} <= set(allowed)
    with pytest.raises(RowError, match="no token is allowed"):
        sampler.sample(row(0), b"\0" * len(mask))


def test_rows_of_all_kinds_in_one_batch_draw_what_they_draw_alone() -> None:
    """Chains that numpy draws for, others, greedy ones, masks and penalties, three steps long."""
    wishes = [
        Sampling(seed=1),
        Sampling(seed=2, top_k=7, top_p=1.0, min_p=0.2),
        Sampling(temperature=0),
        Sampling(seed=4, top_k=0),
        Sampling(seed=5, typical_p=0.7),
        Sampling(seed=6, repeat_penalty=1.3, temperature=1.7),
        Sampling(seed=7, top_k=200, top_p=0.5),
        *(Sampling(seed=seed, temperature=0.5) for seed in range(20, 30)),
    ]
    allowed = np.packbits(np.arange(VOCAB) % 3 == 0, bitorder="little").tobytes()
    masks = {0: allowed, 3: allowed}
    rows = [Row(slot, 1, 9, masked=slot in masks) for slot in range(len(wishes))]
    pools = [SamplerPool(parallel=False), SamplerPool(parallel=True)]
    alone = [Sampler(wish, (5, 6), VOCAB, 512, 2) for wish in wishes]
    for pool in pools:
        for slot, wish in enumerate(wishes):
            pool.install(slot, Sampler(wish, (5, 6), VOCAB, 512, 2))
    for step in range(3):
        logits = np.stack([row(100 * step + slot) for slot in range(len(wishes))])
        expected = [
            s.sample(values.copy(), masks.get(slot))
            for slot, (s, values) in enumerate(zip(alone, logits, strict=True))
        ]
        for pool in pools:
            drawn = pool.sample(rows, logits.copy(), masks)
            assert [(r.token, r.logprob, r.top) for r in drawn] == expected
    for pool in pools:
        pool.close()


def test_a_bad_row_leaves_its_batch_alone() -> None:
    pool = SamplerPool(parallel=False)
    for slot in (0, 1, 2, 3):
        pool.install(slot, Sampler(Sampling(seed=slot), (), VOCAB, 512))
    logits = np.stack([row(slot) for slot in range(5)])
    logits[1, VOCAB - 1] = np.nan
    logits[2] = -np.inf
    rows = [Row(slot, 1, 9, masked=slot == 3) for slot in range(5)]
    drawn = pool.sample(rows, logits.copy(), {})
    [token, *_] = Sampler(Sampling(seed=0), (), VOCAB, 512).sample(row(0))
    assert (drawn[0].token, drawn[0].error) == (token, "")
    assert [next(words for words in WORDS if words in result.error) for result in drawn[1:]] == [
        "not a number",
        "no token",
        "without a mask",
        "never admitted",
    ]
