"""Text that is cut between tokens: characters and stop strings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lhama_testing_daemon import running

from lhama.backends.reference.model import write

EMOJI = "🦙👩‍👩‍👧‍👦🇵🇪"


@pytest.mark.fault(33)
def test_characters_of_several_tokens_arrive_whole(tmp_path: Path, smollm2: Path) -> None:
    """A real model that may say nothing but emoji, which take it several tokens each."""
    with running(tmp_path / "models") as daemon:
        daemon.create("real", smollm2)
        options = {"num_predict": 200, "temperature": 0}
        body = {"model": "real", "prompt": "Say it.", "options": options}
        body["format"] = {"enum": [EMOJI]}
        pieces = [line["response"] for line in daemon.lines("/api/generate", body)]
        assert json.loads("".join(pieces)) == EMOJI
        assert not any("\ufffd" in piece for piece in pieces)
        whole = daemon.call("/api/generate", body | {"stream": False})
        assert whole["response"] == "".join(pieces)
        assert whole["eval_count"] > len(EMOJI), "they were split"


@pytest.mark.fault(34)
def test_no_beginning_of_a_stop_string_is_sent(tmp_path: Path) -> None:
    """The reference model's tokens are single letters, so every stop string is split."""
    write(tmp_path / "ref.gguf")
    with running(tmp_path / "models") as daemon:
        daemon.create("ref", tmp_path / "ref.gguf")

        def body(*stop: str, stream: bool) -> dict[str, object]:
            options = {"num_predict": 80, "temperature": 0, "stop": list(stop)}
            return {"model": "ref", "prompt": "x", "stream": stream, "options": options}

        text = daemon.call("/api/generate", body(stream=False))["response"]
        assert len(text) == 80
        for start, length in ((10, 2), (20, 5), (33, 11), (60, 20)):
            stop = text[start : start + length]
            expected = text[: text.index(stop)]
            lines = list(daemon.lines("/api/generate", body(stop, stream=True)))
            assert "".join(line["response"] for line in lines) == expected
            assert lines[-1]["done_reason"] == "stop"
            assert daemon.call("/api/generate", body(stop, stream=False))["response"] == expected
        missed = daemon.call("/api/generate", body(text[10:14] + "§", stream=False))
        assert missed["response"] == text, "what only began like it is sent in the end"
