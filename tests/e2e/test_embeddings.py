"""all-MiniLM-L6-v2 behind a real daemon, on each backend: what Ollama's own tests ask of it."""

from __future__ import annotations

import math
import threading
import urllib.error
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from lhama_testing_daemon import Daemon, running
from lhama_testing_models import changed_copy

BLUE = "why is the sky blue?"
BLUE_START = (0.010071031, -0.0017594865, 0.050072223, 0.046929732, 0.05491682, 0.008599705)
"""What Ollama's integration test expects first, at unit length."""
BLUE_NORM = 6.596
"""Length of the same vector as the model makes it."""


@pytest.fixture(scope="module", params=["llamacpp", "pytorch"])
def daemon(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, minilm: Path
) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("embeddings")
    raw = folder / "raw.gguf"
    changed_copy(minilm, raw, {"bert.normalize_embeddings": False})
    with running(folder / "models", LHAMA_BACKEND=request.param) as daemon:
        daemon.create("all-minilm", minilm)
        daemon.create("raw", raw)
        yield daemon


def embed(daemon: Daemon, text: str | list[str], **members: Any) -> Any:
    return daemon.call("/api/embed", {"model": "all-minilm", "input": text, **members})


def refused(daemon: Daemon, text: str | list[str], **members: Any) -> str:
    with pytest.raises(urllib.error.HTTPError) as error:
        embed(daemon, text, **members)
    assert error.value.code == 400
    return error.value.read().decode()


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    product = sum(x * y for x, y in zip(a, b, strict=True))
    return product / math.hypot(*a) / math.hypot(*b)


def test_the_vector_ollama_expects(daemon: Daemon) -> None:
    reply = embed(daemon, BLUE)
    assert list(reply) == [
        *("model", "embeddings", "total_duration", "load_duration", "prompt_eval_count")
    ]
    [vector] = reply["embeddings"]
    assert len(vector) == 384
    assert vector[:6] == pytest.approx(BLUE_START, abs=1e-3)
    assert math.hypot(*vector) == pytest.approx(1, abs=1e-6)
    assert reply["prompt_eval_count"] == 8, "[CLS] and [SEP] are counted"


def test_a_list_gives_what_each_gives_alone(daemon: Daemon) -> None:
    texts = [BLUE, "why is the grass green?", BLUE, "a"]
    reply = embed(daemon, texts)
    alone = [embed(daemon, text) for text in texts]
    assert reply["prompt_eval_count"] == sum(a["prompt_eval_count"] for a in alone)
    for vector, single in zip(reply["embeddings"], alone, strict=True):
        assert cosine(vector, single["embeddings"][0]) > 0.99999


def test_dimensions(daemon: Daemon) -> None:
    [whole] = embed(daemon, BLUE)["embeddings"]
    [cut] = embed(daemon, BLUE, dimensions=16)["embeddings"]
    assert len(cut) == 16
    assert math.hypot(*cut) == pytest.approx(1, abs=1e-6)
    assert cosine(cut, whole[:16]) > 0.99999
    for dimensions in (0, -1, 384, 1000):
        assert embed(daemon, BLUE, dimensions=dimensions)["embeddings"] == [whole]


def test_the_older_route(daemon: Daemon) -> None:
    """Vectors as the model makes them where the file says so, else at unit length."""
    [expected] = embed(daemon, BLUE)["embeddings"]
    for model, length in (("all-minilm", 1.0), ("raw", BLUE_NORM)):
        reply = daemon.call("/api/embeddings", {"model": model, "prompt": BLUE})
        assert list(reply) == ["embedding"]
        assert cosine(reply["embedding"], expected) > 0.99999
        assert math.hypot(*reply["embedding"]) == pytest.approx(length, rel=1e-3)


# ------------------------------------------------------------------- texts longer than the context

reloading = pytest.mark.parametrize("daemon", ["llamacpp"], indirect=True)
"""The rules are the runner's, whatever the backend; each option loads the model again."""


@reloading
@pytest.mark.parametrize("truncate", [None, True])
def test_a_small_context_cuts_texts(daemon: Daemon, truncate: bool | None) -> None:
    """Three tokens: one beside [CLS] and [SEP]."""
    given = {} if truncate is None else {"truncate": truncate}
    cut = embed(daemon, BLUE, options={"num_ctx": 3}, **given)
    why = embed(daemon, "why")
    assert cut["prompt_eval_count"] == why["prompt_eval_count"] == 3
    assert cosine(cut["embeddings"][0], why["embeddings"][0]) > 0.9999


@reloading
def test_or_refuses_them(daemon: Daemon) -> None:
    words = "the input length exceeds the context length"
    assert words in refused(daemon, BLUE, options={"num_ctx": 3}, truncate=False)
    batch = ["short", "very long input " * 100, "another short one"]
    assert words in refused(daemon, batch, options={"num_ctx": 10}, truncate=False)
    assert embed(daemon, ["short"], options={"num_ctx": 10}, truncate=False)["embeddings"]


@reloading
def test_no_room_at_all(daemon: Daemon) -> None:
    assert "input after truncation exceeds" in refused(daemon, BLUE, options={"num_ctx": 1})
    assert "cannot be truncated further" in refused(daemon, BLUE, options={"num_ctx": 0})


@reloading
def test_a_batch_is_counted_within_the_context(daemon: Daemon) -> None:
    reply = embed(daemon, ["short", "long " * 100, "medium text"], options={"num_ctx": 30})
    assert reply["prompt_eval_count"] == 3 + 30 + 4
    assert len(reply["embeddings"]) == 3


@reloading
def test_num_batch_bounds_a_text_too(daemon: Daemon) -> None:
    options = {"num_ctx": 64, "num_batch": 12}
    assert embed(daemon, "word " * 40, options=options)["prompt_eval_count"] == 12
    words = "the input length exceeds the context length"
    assert words in refused(daemon, "word " * 40, options=options, truncate=False)
    body = {"model": "all-minilm", "prompt": "word " * 40, "options": options}
    with pytest.raises(urllib.error.HTTPError) as error:
        daemon.call("/api/embeddings", body)
    assert error.value.code == 500
    assert words in error.value.read().decode()


def test_very_long_texts_are_cut_to_what_the_model_was_trained_on(daemon: Daemon) -> None:
    assert embed(daemon, "word " * 800)["prompt_eval_count"] == 512


# ---------------------------------------------------------------------------------- many clients


def test_clients_share_the_model(daemon: Daemon) -> None:
    """A client with one text is answered while another one's thousand are computed."""
    texts = [f"text number {n} of a long list" for n in range(1000)]
    replies: list[Any] = []
    many = threading.Thread(target=lambda: replies.append(embed(daemon, texts)))
    many.start()
    try:
        singles = 0
        while many.is_alive():
            [vector] = embed(daemon, f"a single text, {singles}")["embeddings"]
            assert len(vector) == 384
            singles += 1
    finally:
        many.join()
    assert singles > 3
    [reply] = replies
    assert len(reply["embeddings"]) == 1000
    assert cosine(reply["embeddings"][700], embed(daemon, texts[700])["embeddings"][0]) > 0.99999


# ------------------------------------------------------------------------------------ what it is


def test_capabilities(daemon: Daemon) -> None:
    assert daemon.call("/api/show", {"model": "all-minilm"})["capabilities"] == ["embedding"]
    listed = {m["name"]: m for m in daemon.call("/api/tags")["models"]}
    assert listed["all-minilm:latest"]["capabilities"] == ["embedding"]
    assert listed["all-minilm:latest"]["details"]["embedding_length"] == 384
    assert listed["raw:latest"]["capabilities"] == ["embedding"]
    embed(daemon, [])
    [loaded] = [m for m in daemon.call("/api/ps")["models"] if m["name"] == "all-minilm:latest"]
    assert loaded["context_length"] == 512


@pytest.mark.parametrize("path", ["/api/generate", "/api/chat"])
def test_it_does_not_generate(daemon: Daemon, path: str) -> None:
    body = {"model": "all-minilm", "prompt": "x", "messages": [{"role": "user", "content": "x"}]}
    with pytest.raises(urllib.error.HTTPError) as error:
        daemon.call(path, body)
    assert error.value.code == 400
    verb = path.rpartition("/")[2]
    assert f'\\"all-minilm\\" does not support {verb}' in error.value.read().decode()
