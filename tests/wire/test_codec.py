"""Frames survive any cutting, and nonsense is refused before it costs memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhama.daemon.wire import codec
from lhama.daemon.wire.messages import (
    Cancel,
    Delta,
    Done,
    Generate,
    Load,
    Message,
    Prompt,
    Step,
    TokenLogprob,
)
from lhama.plugins.backend import LoadOptions, ModelFiles, Sampling

LOAD = Load("reference", ModelFiles("m", "/m.gguf"), LoadOptions(slots=2))
GENERATE = Generate(
    7,
    Prompt(messages=[Message("user", "hi 🦙", images=[b"\x00\xff"])], think="high"),
    Sampling(seed=3),
    stop=["\n"],
)


@given(st.lists(st.integers(min_value=1, max_value=400), max_size=30))
def test_messages_survive_any_cutting(cuts: list[int]) -> None:
    sent = [LOAD, GENERATE, Cancel(7)]
    data = b"".join(map(codec.encode, sent))
    decoder = codec.runner_side()
    received, start = [], 0
    for cut in cuts:
        received += decoder.feed(data[start : start + cut])
        start += cut
    received += decoder.feed(data[start:])
    assert received == sent


def test_a_step_carries_everything_of_its_deltas() -> None:
    delta = Delta(1, "a", "b", [], [TokenLogprob(b"\xf0", -0.5, [(b"x", -1.0)])])
    last = Delta(2, done=Done("stop", 3, 4, 5, 6, [1, 2], 2))
    assert codec.daemon_side().feed(codec.encode(Step([delta, last]))) == [Step([delta, last])]


def test_an_impossible_length_is_refused_before_it_is_allocated() -> None:
    with pytest.raises(codec.FrameError, match="4294967295 bytes"):
        codec.daemon_side().feed(b"\xff\xff\xff\xff")


@given(st.binary(min_size=1, max_size=60))
def test_nonsense_is_refused(body: bytes) -> None:
    frame = len(body).to_bytes(4, "little") + body
    try:
        messages = codec.daemon_side().feed(frame)
    except codec.FrameError:
        return
    assert len(messages) == 1, "a frame is one message or none"
