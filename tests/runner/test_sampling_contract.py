"""What Ollama's options mean, on both engines and both small models: one set of rules."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from lhama_testing_line import GREEDY, Line, Received

from lhama.daemon.runner.grammar import Grammars
from lhama.plugins.backend import LoadOptions, ModelFiles, Sampling
from lhama.plugins.manager import discover

PROMPT = "The sky is blue because the"
COUNTING = "one two three four one two three four one two three"
CONTEXT = 256
TOKENS = 6
PLAIN = Sampling(temperature=0.8, top_k=40, top_p=0.9, seed=5)


class Model:
    """One engine in a line, asked one thing at a time or several at once."""

    def __init__(self, backend: str, path: Path) -> None:
        self.name = path.stem
        options = LoadOptions(slots=3, context=CONTEXT, threads=2)
        files = ModelFiles(path.stem, str(path))
        engine = discover().backends[backend].load(files, options, lambda *_: None)
        self.backend = backend
        self.line = Line("host", engine=engine)
        self._ids = count(1)

    def begin(self, prompt: str = PROMPT, num_predict: int = TOKENS, **wishes: object) -> Received:
        return self.line.submit(
            next(self._ids),
            prompt,
            num_predict=num_predict,
            **wishes,  # type: ignore[arg-type]
        )

    def ask(self, prompt: str = PROMPT, num_predict: int = TOKENS, **wishes: object) -> Received:
        received = self.begin(prompt, num_predict, **wishes)
        assert received.ended.wait(100)
        assert received.error == ""
        assert received.done is not None
        return received

    def text(self, sampling: Sampling, **wishes: object) -> str:
        return self.ask(sampling=sampling, **wishes).text

    def encode(self, text: str) -> list[int]:
        return self.line.engine.tokenizer.encode(text, add_special=True, parse_special=True)


@pytest.fixture(scope="module")
def model(request: pytest.FixtureRequest) -> Iterator[Model]:
    backend, name = request.param.split("-")
    model = Model(backend, request.getfixturevalue(name))
    yield model
    model.line.close()


SMALL = ("llamacpp-smollm2", "pytorch-smollm2")
on_small = pytest.mark.parametrize("model", SMALL, indirect=True)
on_every = pytest.mark.parametrize(
    "model", [*SMALL, "llamacpp-gemma3", "pytorch-gemma3"], indirect=True
)
"""With the second family where it could make a difference: another vocabulary, another kernel."""


# ------------------------------------------------------------------------------------- the chain


@on_every
def test_many_ways_to_be_greedy(model: Model) -> None:
    ways = (
        GREEDY,
        replace(PLAIN, temperature=-3.0),
        replace(PLAIN, top_k=1),
        replace(PLAIN, top_k=0, top_p=0.0),
        replace(PLAIN, top_k=0, top_p=1.0, min_p=1.0),
        replace(PLAIN, temperature=1e-6),
    )
    answers = [model.begin(sampling=sampling) for sampling in ways]
    assert all(answer.ended.wait(100) for answer in answers)
    assert len({answer.text for answer in answers}) == 1
    assert answers[0].text


@on_small
def test_what_leaves_everything_in_changes_nothing(model: Model) -> None:
    free = Sampling(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, typical_p=1.0, seed=3)
    text = model.text(free)
    for sampling in (
        replace(free, top_k=-1),
        replace(free, top_k=10_000_000),
        replace(free, top_p=1.5),
        replace(free, repeat_penalty=1.3, repeat_last_n=0),
        replace(free, presence_penalty=0.0, frequency_penalty=0.0, repeat_last_n=-1),
    ):
        assert model.text(sampling) == text, sampling


@on_small
def test_a_huge_temperature_is_noise_and_no_fault(model: Model) -> None:
    hot = Sampling(temperature=1e6, top_k=0, top_p=1.0, seed=1)
    texts = {model.text(replace(hot, seed=seed)) for seed in range(3)}
    assert len(texts) == 3
    assert model.text(replace(hot, temperature=3e38))


@on_small
def test_a_seed_gives_the_same_answer_whatever_runs_beside_it(model: Model) -> None:
    alone = model.text(PLAIN)
    assert model.text(PLAIN) == alone
    others = [
        model.begin("Once upon a time there was", 10, sampling=replace(PLAIN, seed=seed))
        for seed in (1, 2)
    ]
    assert model.text(PLAIN) == alone
    assert all(other.ended.wait(100) for other in others)
    assert len({other.text for other in others}) == 2


# --------------------------------------------------------------------------------------- penalties


@on_every
def test_penalties_look_back_on_the_prompt(model: Model) -> None:
    """A presence penalty that nothing outweighs forbids what was said, prompt and answer."""
    never_again = replace(GREEDY, presence_penalty=1e4, repeat_last_n=-1)
    received = model.ask(sampling=never_again, logprobs=0, num_predict=12)
    said = [item.token for item in received.logprobs]
    piece = model.line.engine.tokenizer.piece
    asked = [piece(token, special=True) for token in model.encode(PROMPT)]
    assert len(set(said)) == len(said)
    assert not set(said) & set(asked)


@on_every
def test_penalties_look_back_as_far_as_they_are_told(model: Model) -> None:
    """four is the likeliest here, and was said four tokens ago."""

    def next_word(sampling: Sampling) -> str:
        return model.ask(COUNTING, 1, sampling=sampling).text

    assert next_word(GREEDY) == " four"
    for penalty in (
        replace(GREEDY, repeat_penalty=100.0),
        replace(GREEDY, presence_penalty=100.0),
        replace(GREEDY, frequency_penalty=100.0),
    ):
        for near in (0, 1, 3):
            assert next_word(replace(penalty, repeat_last_n=near)) == " four"
        for far in (4, 1000, -1):
            assert next_word(replace(penalty, repeat_last_n=far)) != " four"


@on_small
def test_a_frequency_penalty_counts(model: Model) -> None:
    """four has been said twice and so loses twice as much; the others three times."""
    logprobs = model.ask(COUNTING, 1, sampling=GREEDY, logprobs=2).logprobs[0]
    (_, first), (_, second) = logprobs.top
    unsaid = first - second
    for share, text in ((0.4, " four"), (50.0, None)):
        sampling = replace(GREEDY, frequency_penalty=unsaid * share, repeat_last_n=-1)
        said = model.ask(COUNTING, 1, sampling=sampling).text
        assert (said == " four") is (text is not None)


# -------------------------------------------------------------------------------- log-probabilities


@on_every
def test_log_probabilities_are_the_models_own(model: Model) -> None:
    """Over the raw logits: temperature, penalties and truncation do not show in them."""
    plain = model.ask(sampling=GREEDY, logprobs=20, num_predict=3)
    assert len(plain.logprobs) == 3
    for item in plain.logprobs:
        values = [value for _, value in item.top]
        assert len(values) == 20
        assert values == sorted(values, reverse=True)
        assert sum(map(math.exp, values)) <= 1.0 + 1e-4
        assert (item.token, pytest.approx(item.logprob, abs=1e-5)) == item.top[0]
    cold = replace(PLAIN, temperature=0.2, top_k=1, repeat_penalty=1.0)
    same = model.ask(sampling=cold, logprobs=5, num_predict=3)
    for ours, theirs in zip(same.logprobs, plain.logprobs, strict=True):
        assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-4)
        assert [token for token, _ in ours.top] == [token for token, _ in theirs.top[:5]]
    odd = replace(GREEDY, presence_penalty=1e4, repeat_last_n=-1)
    penalised = model.ask(sampling=odd, logprobs=5, num_predict=1).logprobs[0]
    assert penalised.top[0][1] == pytest.approx(plain.logprobs[0].top[0][1], abs=1e-4)


@on_small
def test_alternatives_only_where_they_are_asked_for(model: Model) -> None:
    received = model.ask(sampling=GREEDY, logprobs=0, num_predict=2)
    assert [item.top for item in received.logprobs] == [[], []]
    assert model.ask(sampling=GREEDY, num_predict=2).logprobs == []


@on_small
def test_the_end_token_has_no_log_probability(model: Model) -> None:
    """It is counted and not shown. Under a grammar any model gets there."""
    grammars = Grammars(model.line.engine.tokenizer)
    received = model.ask(
        num_predict=40, logprobs=0, grammar=grammars.make('{"enum": ["yes", "no"]}')
    )
    assert received.done is not None
    assert received.done.reason == "stop"
    assert len(received.logprobs) == received.done.eval_tokens - 1
    assert b"".join(item.token for item in received.logprobs).decode() == received.text


# -------------------------------------------------------------------------------- lengths and stops


@on_every
@pytest.mark.parametrize("num_predict", [1, 2, 3])
def test_exact_lengths(model: Model, num_predict: int) -> None:
    received = model.ask(num_predict=num_predict, logprobs=0)
    assert received.done is not None
    assert (received.done.reason, received.done.eval_tokens) == ("length", num_predict)
    assert len(received.logprobs) == num_predict
    assert received.done.prompt_tokens == len(model.encode(PROMPT))
    if num_predict == 1:
        assert received.done.eval_ns == 1000, "as llama.cpp's server reports it"


@on_small
def test_stop_strings_split_over_tokens(model: Model) -> None:
    whole = model.ask(num_predict=12).text
    wishes = [[whole[begin : begin + 6], "", "never said"] for begin in (0, 3, 7)]
    wishes.append([whole[9:12], whole[5:11], whole[1:3]])
    answers = [(model.begin(num_predict=12, stop=stops), stops) for stops in wishes]
    for answer, stops in answers:
        assert answer.ended.wait(100)
        first = min(whole.find(stop) for stop in stops if stop and stop in whole)
        assert answer.text == whole[:first]
        assert answer.done is not None
        assert answer.done.reason == "stop"


@on_small
def test_characters_of_many_tokens_are_whole(model: Model) -> None:
    grammars = Grammars(model.line.engine.tokenizer)
    received = model.ask(num_predict=60, grammar=grammars.make('{"const": "é猫😀 👩‍👧 ß"}'))
    assert received.text == '"é猫😀 👩‍👧 ß"'
    assert all("\ufffd" not in chunk for chunk in received.chunks)


# --------------------------------------------------------------------------------- a full context


def long_prompt(model: Model, tokens: int) -> str:
    text = " word" * tokens
    while len(model.encode(text)) > tokens:
        text = text[:-5]
    assert len(model.encode(text)) == tokens
    return text


@on_every
def test_without_shift_a_full_context_ends_the_answer(model: Model) -> None:
    """Golden ``chat_past_ctx_shift_false``: 18 + 238 = 256."""
    received = model.ask(long_prompt(model, CONTEXT - 5), 50, shift=False, sampling=GREEDY, stop=[])
    assert received.done is not None
    assert (received.done.reason, received.done.eval_tokens) == ("length", 5)


@on_small
def test_with_shift_it_goes_on(model: Model) -> None:
    hot = Sampling(temperature=2.0, top_k=0, top_p=1.0, seed=1)  # no end and no repetition
    received = model.ask(long_prompt(model, CONTEXT - 5), 20, num_keep=4, sampling=hot)
    assert received.done is not None
    assert (received.done.reason, received.done.eval_tokens) == ("length", 20)
    assert received.done.prompt_tokens == CONTEXT - 5


@on_small
def test_the_longest_prompt_leaves_one_token(model: Model) -> None:
    received = model.ask(long_prompt(model, CONTEXT - 1), 50, shift=False)
    assert received.done is not None
    assert (received.done.reason, received.done.eval_tokens) == ("length", 1)
