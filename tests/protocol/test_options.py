"""Ollama's options: types, layers and bounds."""

from __future__ import annotations

from typing import Any

import pytest

from lhama.daemon.errors import LhamaError
from lhama.daemon.protocol.options import Options, merge


def test_defaults() -> None:
    sampling = merge().sampling()
    assert (sampling.temperature, sampling.top_k, sampling.top_p) == (0.8, 40, 0.9)
    assert (sampling.repeat_last_n, sampling.repeat_penalty) == (64, 1.0)
    assert 0 <= sampling.seed < 2**32


def test_the_request_wins_over_the_model_and_the_environment() -> None:
    model = {"num_ctx": 1000, "temperature": 1, "stop": ["a"]}
    options = merge(model, {"num_ctx": 2000, "stop": ["b", "c"]}, context_length=500)
    assert (options.num_ctx, options.temperature, options.stop) == (2000, 1.0, ("b", "c"))
    assert merge(model, context_length=500).num_ctx == 1000
    assert merge(context_length=500).num_ctx == 500
    assert merge().num_ctx is None


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"num_ctx": "x"}, 'option "num_ctx" must be of type integer'),
        ({"num_predict": True}, 'option "num_predict" must be of type integer'),
        ({"temperature": "x"}, 'option "temperature" must be of type float32'),
        ({"use_mmap": 1}, 'option "use_mmap" must be of type boolean'),
        ({"stop": "x"}, 'option "stop" must be of type array'),
        ({"stop": ["a", 5]}, 'option "stop" must be of an array of strings'),
    ],
)
def test_a_wrong_type_is_a_500(options: dict[str, Any], error: str) -> None:
    with pytest.raises(LhamaError) as caught:
        merge(options)
    assert (caught.value.status, caught.value.message) == (500, error)


def test_unknown_and_null_are_ignored_and_floats_truncated() -> None:
    options = merge({"bananas": 3, "temperature": None, "num_predict": 2.7, "top_k": -3.9})
    assert options == Options(num_predict=2, top_k=-3)


@pytest.mark.parametrize(("given", "bounded"), [(8, 8), (0, 640), (-1, 640), (9999, 640)])
def test_num_predict_is_bounded(given: int, bounded: int) -> None:
    assert Options(num_predict=given).bounded_predict(64) == bounded


@pytest.mark.parametrize(("given", "floored"), [(0, 4), (-5, 4), (3, 4), (64, 64)])
def test_the_context_has_a_floor(given: int, floored: int) -> None:
    assert merge({"num_ctx": given}).floored(vision=False).num_ctx == floored
    assert merge({"num_ctx": given}).floored(vision=True).num_ctx == 2048


def test_seeds() -> None:
    assert Options(seed=42).sampling().seed == 42
    assert Options(seed=99999999999).sampling().seed < 2**32
    drawn = {Options().sampling().seed for _ in range(5)}
    assert len(drawn) > 1


def test_penalties_leave_a_number_of_a_logit() -> None:
    drawn = Options(repeat_penalty=1e-9, presence_penalty=-1e300, min_p=1e300).sampling()
    assert (drawn.repeat_penalty, drawn.presence_penalty, drawn.min_p) == (1e-6, -1e6, 1.0)
    drawn = Options(repeat_penalty=-1.5, frequency_penalty=0.25).sampling()
    assert (drawn.repeat_penalty, drawn.frequency_penalty) == (-1.5, 0.25)


def test_numbers_out_of_reach_do_not_break() -> None:
    assert merge({"seed": 1e30}).seed == -(2**63)  # as Go converts it
    with pytest.raises(LhamaError, match="integer"):
        merge({"seed": float("inf")})
