"""Sampling: the chain leaves what llama.cpp's leaves, and draws depend on seed and place alone."""

from __future__ import annotations

import ctypes
import itertools
import math
import random
from collections import Counter
from dataclasses import replace

import pytest

from lhama.backends.llamacpp.library import L, log, np
from lhama.backends.pytorch.sampler import Drawn, Fault, Sampler, pick, truncate, uniform
from lhama.plugins.backend import Admit, Row, Sampling

import torch  # isort: skip - llama.cpp's library comes first

VOCAB = 500
CPU = torch.device("cpu")
PLAIN = Sampling(temperature=1.0, top_k=0, top_p=1.0)


def noise(rows: int = 1, seed: int = 1) -> torch.Tensor:
    return torch.randn(rows, VOCAB, generator=torch.Generator().manual_seed(seed)) * 3


def drawn(
    logits: torch.Tensor,
    *samplings: Sampling,
    histories: tuple[tuple[int, ...], ...] = (),
    logprobs: tuple[int, ...] = (),
    positions: tuple[int, ...] = (),
    allowed: dict[int, torch.Tensor] | None = None,
    slots: tuple[int, ...] = (),
    sampler: Sampler | None = None,
) -> Drawn:
    """One step of fresh sequences, a row each."""
    count = len(samplings)
    places = slots or tuple(range(count))
    sampler = sampler or Sampler(max(places) + 1, VOCAB, 64, CPU)
    for index, sampling in enumerate(samplings):
        past = histories[index] if histories else (0,)
        admit = Admit(places[index], 1, sampling, past, logprobs[index] if logprobs else -1)
        sampler.admit(admit)
        history = sampler.penalties.history(admit)
        if history is not None:
            sampler.penalties.fill(*history)
    rows = [Row(places[i], 1, positions[i] if positions else 5, (0,)) for i in range(count)]
    return sampler.draw(logits.clone(), sampler.stage(sampler.turns(rows)), allowed or {})


def theirs(logits: torch.Tensor, sampling: Sampling) -> dict[int, float]:
    """The tokens llama.cpp's own chain leaves, with their probabilities."""
    log()
    chain = L.llama_sampler_chain_init(L.llama_sampler_chain_default_params())
    L.llama_sampler_chain_add(chain, L.llama_sampler_init_top_k(sampling.top_k))
    L.llama_sampler_chain_add(chain, L.llama_sampler_init_typical(sampling.typical_p, 1))
    L.llama_sampler_chain_add(chain, L.llama_sampler_init_top_p(sampling.top_p, 1))
    L.llama_sampler_chain_add(chain, L.llama_sampler_init_min_p(sampling.min_p, 1))
    L.llama_sampler_chain_add(chain, L.llama_sampler_init_temp(sampling.temperature))
    L.llama_sampler_chain_add(chain, L.llama_sampler_init_dist(1))
    data = (L.llama_token_data * VOCAB)()
    for token, value in enumerate(logits.tolist()):
        data[token] = L.llama_token_data(token, value, 0.0)
    array = L.llama_token_data_array(data, VOCAB, -1, False)
    L.llama_sampler_apply(chain, ctypes.byref(array))
    found = {array.data[i].id: array.data[i].logit for i in range(array.size)}
    L.llama_sampler_free(chain)
    values = np.array(list(found.values()))
    shares = np.exp(values - values.max())
    return dict(zip(found, (shares / shares.sum()).tolist(), strict=True))


def ours(logits: torch.Tensor, sampling: Sampling) -> dict[int, float]:
    sampler = Sampler(1, VOCAB, 64, CPU)
    sampler.admit(Admit(0, 1, sampling, ()))
    (group,) = sampler.stage(sampler.turns([Row(0, 1, 5, (0,))])).groups
    values, ids = logits.unsqueeze(0).topk(group.width, dim=-1)
    shares = (truncate(values, group) / sampling.temperature).softmax(-1)[0].tolist()
    return {t: p for t, p in zip(ids[0].tolist(), shares, strict=True) if p > 0}


def settings(count: int) -> list[Sampling]:
    numbers = random.Random(3)
    return [
        Sampling(
            temperature=numbers.choice([0.2, 0.8, 1.0, 1.7]),
            top_k=numbers.choice([0, 1, 5, 40, 64, 65, 400, 499, 500, 9999]),
            top_p=numbers.choice([1.0, 0.95, 0.5, 0.1, 0.0]),
            min_p=numbers.choice([0.0, 0.05, 0.3, 1.0]),
            typical_p=numbers.choice([1.0, 1.0, 0.9, 0.3]),
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("case", range(60))
def test_the_chain_leaves_llama_cpps_candidates(case: int) -> None:
    sampling = settings(60)[case]
    logits = noise(seed=case)[0]
    mine, other = ours(logits, sampling), theirs(logits, sampling)
    assert mine.keys() == other.keys(), sampling
    for token, share in mine.items():
        assert share == pytest.approx(other[token], rel=1e-3, abs=1e-6)


def test_draws_follow_the_distribution() -> None:
    """4,000 draws of one row at as many positions: each of five tokens within 4 deviations."""
    shares = [0.4, 0.3, 0.15, 0.1, 0.05]
    logits = torch.full((1, VOCAB), -1e9)
    logits[0, :5] = torch.tensor(shares).log()
    count = 4000
    sampler = Sampler(1, VOCAB, 64, CPU)
    seen: Counter[int] = Counter()
    sampler.admit(Admit(0, 1, replace(PLAIN, seed=11), ()))
    for position in range(count):
        request = sampler.stage(sampler.turns([Row(0, 1, position)]))
        seen[int(sampler.draw(logits, request, {}).tokens[0])] += 1
    for token, share in enumerate(shares):
        assert abs(seen[token] - count * share) < 4 * math.sqrt(count * share * (1 - share))


def test_uniform_numbers_are_uniform_and_unrelated() -> None:
    numbers = [uniform(seed, position) for seed in range(20) for position in range(200)]
    assert all(0 <= number < 1 for number in numbers)
    assert len(set(numbers)) > 3990
    tenths = Counter(int(number * 10) for number in numbers)
    assert all(abs(tenths[tenth] - 400) < 80 for tenth in range(10))
    neighbours = sum((a - 0.5) * (b - 0.5) for a, b in itertools.pairwise(numbers))
    assert abs(neighbours / len(numbers)) < 4 / 12 / math.sqrt(len(numbers))
    assert uniform(-1, 5) == uniform(-1, 5) != uniform(1, 5)


@pytest.mark.parametrize("case", range(10))
def test_a_draw_ignores_its_batch_mates_and_its_slot(case: int) -> None:
    chosen = settings(40)[case::10]
    logits = noise(4, seed=case)
    together = drawn(logits, *chosen, slots=(3, 1, 0, 2)).tokens.tolist()
    alone = [int(drawn(logits[i : i + 1], chosen[i]).tokens[0]) for i in range(4)]
    assert together == alone


def test_greedy_takes_the_most_probable() -> None:
    logits = noise(3)
    greedy = Sampling(temperature=0.0)
    odd = replace(greedy, typical_p=0.5)  # the most probable may not be typical
    tokens = drawn(logits, greedy, odd, replace(greedy, temperature=-1.0)).tokens.tolist()
    best = logits.argmax(-1).tolist()
    assert [tokens[0], tokens[2]] == [best[0], best[2]]
    left = ours(logits[1], replace(odd, temperature=1.0))
    assert tokens[1] == max(left, key=left.__getitem__)


def test_the_last_number_never_falls_off_the_end() -> None:
    sampler = Sampler(1, VOCAB, 64, CPU)
    sampler.admit(Admit(0, 1, replace(PLAIN, top_k=3), ()))
    (group,) = sampler.stage(sampler.turns([Row(0, 1, 0, (0,))])).groups
    group.settings[0, 5] = 1 - 2**-24
    for seed in range(200):
        values, _ = noise(seed=seed).topk(group.width, dim=-1)
        assert int(pick(values, group)) in (0, 1, 2)


# ------------------------------------------------------------------------------------- penalties


def penalised(logits: torch.Tensor, sampling: Sampling, history: list[int]) -> torch.Tensor:
    """The rule as it is told, one token at a time."""
    window = min(sampling.repeat_last_n, 64) if sampling.repeat_last_n >= 0 else 64
    counts = Counter(history[len(history) - min(window, len(history)) :])
    out = logits.clone()
    for token, count in counts.items():
        value = float(out[token])
        value = value * sampling.repeat_penalty if value <= 0 else value / sampling.repeat_penalty
        out[token] = value - count * sampling.frequency_penalty - sampling.presence_penalty
    return out


@pytest.mark.parametrize("last", [-1, 0, 1, 4, 64, 1000])
def test_penalties_equal_the_plain_rule(last: int) -> None:
    """Over 80 steps of three rows, one without penalties: the ring of 64 wraps, greedy texts of
    the rule and of the engine stay the same."""
    numbers = random.Random(last)
    common = Sampling(temperature=0.0, repeat_last_n=last)
    rows = [
        replace(common, repeat_penalty=1.3),
        common,
        replace(common, presence_penalty=0.7, frequency_penalty=0.4, repeat_penalty=0.9),
    ]
    pasts = [[numbers.randrange(VOCAB) for _ in range(size)] for size in (0, 7, 90)]
    sampler = Sampler(3, VOCAB, 64, CPU)
    for slot, (sampling, past) in enumerate(zip(rows, pasts, strict=True)):
        admit = Admit(slot, 1, sampling, tuple(past))
        sampler.admit(admit)
        history = sampler.penalties.history(admit)
        if history is not None:
            sampler.penalties.fill(*history)
    base = torch.randn(3, VOCAB, generator=torch.Generator().manual_seed(5))
    base[:, 20:] -= 4  # few candidates, so that penalties decide
    for step in range(80):
        logits = base + 0.1 * torch.sin(torch.arange(VOCAB) * step)
        request = sampler.stage(sampler.turns([Row(slot, 1, step) for slot in range(3)]))
        tokens = sampler.draw(logits.clone(), request, {}).tokens.tolist()
        for slot, token in enumerate(tokens):
            expected = penalised(logits[slot], rows[slot], pasts[slot])
            assert token == int(expected.argmax()), (step, slot)
            pasts[slot].append(token)


def test_a_new_sequence_forgets_the_old_ones_tokens() -> None:
    sampler = Sampler(1, VOCAB, 64, CPU)
    sampling = Sampling(temperature=0.0, presence_penalty=100.0)
    logits = noise()
    best, second = logits[0].topk(2).indices.tolist()
    first = drawn(logits, sampling, histories=((best,),), sampler=sampler)
    again = drawn(logits, sampling, histories=((second,),), sampler=sampler)
    assert first.tokens.tolist() == [second]
    assert again.tokens.tolist() == [best]


# ------------------------------------------------------------------- log-probabilities and faults


def test_logprobs_are_of_the_raw_logits() -> None:
    logits = noise(3)
    harsh = Sampling(temperature=0.3, top_k=2, presence_penalty=5.0, seed=4)
    past = tuple(logits[0].topk(2).indices.tolist())
    result = drawn(logits, harsh, PLAIN, PLAIN, histories=(past, (0,), (0,)), logprobs=(4, -1, 0))
    expected = logits.log_softmax(-1)
    assert result.logprobs is not None
    assert result.top_ids is not None
    assert result.top_logprobs is not None
    own = expected.gather(1, result.tokens.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(result.logprobs, own)
    top = expected.topk(4)
    assert result.top_ids.tolist() == top.indices.tolist()
    torch.testing.assert_close(result.top_logprobs, top.values)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("sampling", [PLAIN, Sampling(), Sampling(temperature=0.0)])
def test_a_row_without_numbers_fails_alone(bad: float, sampling: Sampling) -> None:
    logits = noise(3)
    clean = drawn(logits, sampling, sampling, sampling)
    logits[1, 7] = bad
    result = drawn(logits, sampling, sampling, sampling)
    assert result.faults.tolist() == [0, Fault.NOT_FINITE, 0]
    assert result.tokens[[0, 2]].tolist() == clean.tokens[[0, 2]].tolist()


def test_masks_leave_only_allowed_tokens() -> None:
    logits = noise(3)
    allowed = torch.zeros(VOCAB, dtype=torch.bool)
    allowed[[3, 400]] = True
    nothing = torch.zeros(VOCAB, dtype=torch.bool)
    greedy = Sampling(temperature=0.0)
    result = drawn(logits, greedy, Sampling(), greedy, allowed={0: allowed, 1: nothing})
    assert int(result.tokens[0]) == (3 if logits[0, 3] > logits[0, 400] else 400)
    assert result.faults.tolist() == [0, Fault.NOTHING_ALLOWED, 0]
    assert int(result.tokens[2]) == int(logits[2].argmax())
