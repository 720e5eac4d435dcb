"""Pictures through llama.cpp's mtmd: SmolLM2 with a tiny image encoder of random weights.

What such a model says of a picture is noise, but it is noise of that picture: another picture gives
another text, the same one the same text, alone and in company. Noise has near ties, and where a
prompt lies in the cache can decide them: what is compared comes from a cache that was empty.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lhama_testing_daemon import Daemon, running
from lhama_testing_vision import PATCHES, png, write_projector

pytest.importorskip("llama_cpp")

SMOLLM2_WIDTH = 576
OPTIONS = {"temperature": 0, "num_predict": 12, "num_ctx": 512}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("vision")
    projector = folder / "mmproj.gguf"
    write_projector(projector, SMOLLM2_WIDTH)
    with running(folder / "models", LHAMA_BACKEND="llamacpp") as daemon:
        daemon.create("text", smollm2)
        digests = {}
        for path in (smollm2, projector):
            data = path.read_bytes()
            digests[path.name] = "sha256:" + hashlib.sha256(data).hexdigest()
            url = f"{daemon.url}/api/blobs/{digests[path.name]}"
            urllib.request.urlopen(urllib.request.Request(url, data, method="POST")).close()
        body = {"model": "seer", "files": digests, "stream": False}
        assert daemon.call("/api/create", body) == {"status": "success"}
        yield daemon


def _picture(seed: int) -> str:
    return base64.b64encode(png(seed)).decode()


def _chat(daemon: Daemon, *pictures: str, model: str = "seer", text: str = "What is this?") -> Any:
    message = {"role": "user", "content": text, "images": list(pictures)}
    body = {"model": model, "messages": [message], "stream": False, "options": OPTIONS}
    return daemon.call("/api/chat", body)


def _said(reply: Any) -> str:
    return str(reply["message"]["content"])


def _fails(daemon: Daemon, *pictures: str, model: str = "seer") -> tuple[int, str]:
    with pytest.raises(urllib.error.HTTPError) as failure:
        _chat(daemon, *pictures, model=model)
    return failure.value.code, json.load(failure.value)["error"]


def _unload(daemon: Daemon) -> None:
    """Empties the cache."""
    daemon.call("/api/generate", {"model": "seer", "keep_alive": 0})
    while daemon.call("/api/ps")["models"]:
        time.sleep(0.05)


def test_the_model_is_known_to_see(daemon: Daemon) -> None:
    shown = daemon.call("/api/show", {"model": "seer"})
    assert "vision" in shown["capabilities"]
    assert shown["projector_info"]["general.architecture"] == "clip"


def test_the_answer_hangs_on_the_picture(daemon: Daemon) -> None:
    without, first, second = _chat(daemon), _chat(daemon, _picture(1)), _chat(daemon, _picture(2))
    assert first["prompt_eval_count"] == without["prompt_eval_count"] + PATCHES
    assert len({_said(without), _said(first), _said(second)}) == 3
    assert _chat(daemon, _picture(1))["prompt_eval_count"] == first["prompt_eval_count"]
    _unload(daemon)
    assert _said(_chat(daemon, _picture(1))) == _said(first)


def test_where_a_picture_stands_matters(daemon: Daemon) -> None:
    one, other = _picture(1), _picture(2)
    here = _said(_chat(daemon, one, other, text="Before [img] between [img] after"))
    there = _said(_chat(daemon, other, one, text="Before [img] between [img] after"))
    moved = _said(_chat(daemon, one, other, text="[img][img]Before between after"))
    assert len({here, there, moved}) == 3


def test_pictures_in_one_batch_keep_to_themselves(daemon: Daemon) -> None:
    def ask(n: int) -> str:
        return _said(_chat(daemon, _picture(11 + n), text=f"{n}. What is this?"))

    _unload(daemon)
    alone = [ask(n) for n in range(3)]
    _unload(daemon)
    together: dict[int, str] = {}

    def note(n: int) -> None:
        together[n] = ask(n)

    threads = [threading.Thread(target=note, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[n] for n in range(3)] == alone


def test_generate_streams_about_a_picture(daemon: Daemon) -> None:
    body = {"model": "seer", "prompt": "Describe it.", "images": [_picture(3)], "options": OPTIONS}
    lines = list(daemon.lines("/api/generate", body))
    assert "".join(line["response"] for line in lines)
    assert lines[-1]["done"]


def test_a_conversation_goes_on_after_a_picture(daemon: Daemon) -> None:
    turns = [
        {"role": "user", "content": "Look.", "images": [_picture(4)]},
        {"role": "assistant", "content": "I see it."},
        {"role": "user", "content": "And now?", "images": [_picture(5)]},
    ]
    body = {"model": "seer", "messages": turns, "stream": False, "options": OPTIONS}
    chances = []
    for seed in (4, 6):
        turns[0]["images"] = [_picture(seed)]
        reply = daemon.call("/api/chat", body | {"logprobs": True})
        chances.append(reply["logprobs"][0]["logprob"])
    assert abs(chances[0] - chances[1]) > 1e-3, "the first picture still counts"


def test_what_is_no_picture_is_refused(daemon: Daemon) -> None:
    status, error = _fails(daemon, base64.b64encode(b"no picture at all").decode())
    assert status == 400
    assert "Failed to load image or audio file" in error
    status, error = _fails(daemon, base64.b64encode(png(1)[:200]).decode())
    assert status == 400
    status, error = _fails(daemon, _picture(1), model="text")
    assert status == 400
    assert "does not support multimodal requests" in error
    assert _said(_chat(daemon, _picture(1))), "and the runner lives"
