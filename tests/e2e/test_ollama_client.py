"""The official ``ollama`` package, unmodified, against the real daemon with real models."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import ollama
import pytest
from lhama_testing_daemon import Daemon, running
from lhama_testing_models import changed_copy

GREEDY = {"temperature": 0, "num_predict": 12, "num_ctx": 512}
BACKENDS = ("llamacpp", "pytorch")
MODELS = ("smollm2:135m", "gemma3:270m")


@pytest.fixture(scope="module", params=BACKENDS)
def daemon(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    smollm2: Path,
    gemma3: Path,
) -> Iterator[Daemon]:
    """One daemon for each backend, with both models and an embedding model."""
    folder = tmp_path_factory.mktemp("e2e")
    embedder = folder / "embedder.gguf"
    changed_copy(smollm2, embedder, {"llama.pooling_type": 1})  # what makes it an embedding model
    with running(folder / "models", LHAMA_BACKEND=request.param) as daemon:
        daemon.create("smollm2:135m", smollm2)
        daemon.create("gemma3:270m", gemma3)
        daemon.create("embedder", embedder)
        yield daemon


@pytest.fixture
def client(daemon: Daemon) -> Iterator[ollama.Client]:
    with ollama.Client(host=daemon.url) as client:
        yield client


@pytest.fixture
async def async_client(daemon: Daemon) -> AsyncIterator[ollama.AsyncClient]:
    async with ollama.AsyncClient(host=daemon.url) as client:
        yield client


@pytest.mark.parametrize("model", MODELS)
def test_generate(client: ollama.Client, model: str) -> None:
    reply = client.generate(model, "Why is the sky blue?", options=GREEDY)
    assert reply.done
    assert reply.response
    assert reply.eval_count == 12
    assert reply.prompt_eval_count
    assert reply.total_duration
    assert reply.context
    chunks = list(client.generate(model, "Why is the sky blue?", options=GREEDY, stream=True))
    assert "".join(chunk.response for chunk in chunks) == reply.response
    assert [chunk.done for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


@pytest.mark.parametrize("model", MODELS)
def test_chat(client: ollama.Client, model: str) -> None:
    messages = [{"role": "user", "content": "Say hello."}]
    reply = client.chat(model, messages, options=GREEDY)
    assert reply.message.role == "assistant"
    assert reply.message.content
    chunks = list(client.chat(model, messages, options=GREEDY, stream=True))
    assert "".join(c.message.content or "" for c in chunks) == reply.message.content
    assert chunks[-1].done_reason == reply.done_reason


async def test_async(async_client: ollama.AsyncClient) -> None:
    reply = await async_client.generate("smollm2:135m", "Hello", options=GREEDY)
    stream = await async_client.generate("smollm2:135m", "Hello", options=GREEDY, stream=True)
    assert "".join([chunk.response async for chunk in stream]) == reply.response
    messages = [{"role": "user", "content": "Hello"}]
    chat = await async_client.chat("smollm2:135m", messages, options=GREEDY)
    assert chat.message.content
    listed = await async_client.list()
    assert {m.model for m in listed.models} >= set(MODELS)
    shown = await async_client.show("gemma3:270m")
    assert shown.modelinfo
    assert (await async_client.ps()).models
    assert len((await async_client.embed("embedder", "x")).embeddings) == 1
    await async_client.copy("smollm2:135m", "async-copy")
    await async_client.delete("async-copy")
    created = await async_client.create("async-made", from_="smollm2:135m", system="Be brief.")
    assert created.status == "success"
    await async_client.delete("async-made")


def test_embed(client: ollama.Client) -> None:
    reply = client.embed("embedder", ["the sky is blue", "the sky is red", "a quick fox"])
    vectors = reply.embeddings
    assert [len(v) for v in vectors] == [576] * 3
    assert all(abs(sum(x * x for x in v) - 1) < 1e-3 for v in vectors), "unit length"

    def cosine(a: int, b: int) -> float:
        return sum(x * y for x, y in zip(vectors[a], vectors[b], strict=True))

    assert cosine(0, 1) > cosine(0, 2)
    with pytest.raises(ollama.ResponseError) as refused:
        client.embed("smollm2:135m", "a model without pooling")
    assert refused.value.status_code == 501


def test_list_show_ps(client: ollama.Client) -> None:
    client.generate("smollm2:135m", "Hi", options=GREEDY)
    listed = {m.model: m for m in client.list().models}
    assert set(MODELS) <= set(listed)
    assert listed["smollm2:135m"].details is not None
    assert listed["smollm2:135m"].details.family == "llama"
    shown = client.show("smollm2:135m")
    assert shown.capabilities == ["completion"]
    assert (shown.modelinfo or {})["general.architecture"] == "llama"
    assert "smollm2:135m" in [m.model for m in client.ps().models]


def test_copy_create_delete(client: ollama.Client) -> None:
    client.copy("smollm2:135m", "twin")
    client.create(
        "pirate", from_="twin", system="You are a pirate.", parameters={"temperature": 0.1}
    )
    shown = client.show("pirate")
    assert "You are a pirate." in (shown.modelfile or "")
    assert "temperature" in (shown.parameters or "")
    assert client.generate("pirate", "Hi", options=GREEDY).response
    for name in ("twin", "pirate"):
        client.delete(name)
    with pytest.raises(ollama.ResponseError) as missing:
        client.show("pirate")
    assert missing.value.status_code == 404
