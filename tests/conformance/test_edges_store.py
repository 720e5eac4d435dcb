"""Sharp edges of Ollama's contract (§10): models in the store."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from lhama_testing_http import Create, Server, serving

from lhama.plugins import gguf

CREATE, SHOW, DELETE = "POST /api/create", "POST /api/show", "DELETE /api/delete"


def blobs(server: Server) -> set[str]:
    return {path.name for path in (server.settings.models / "blobs").iterdir()}


def manifests(server: Server) -> list[str]:
    root = server.settings.models / "manifests"
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def layers(server: Server, name: str = "ref") -> dict[str, list[str]]:
    """Texts of a model's small layers by the last word of their type."""
    path = server.settings.models / "manifests/registry.ollama.ai/library" / name / "latest"
    found: dict[str, list[str]] = {}
    for layer in json.loads(path.read_bytes())["layers"]:
        kind = layer["mediaType"].rpartition(".")[2]
        if kind != "model":
            blob = server.settings.models / "blobs" / layer["digest"].replace(":", "-")
            found.setdefault(kind, []).append(blob.read_text())
    return found


def digest_of(text: str) -> str:
    return "sha256-" + hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
async def ref(create: Create) -> str:
    await create("ref")
    return "ref"


async def make(server: Server, **members: Any) -> None:
    body = {"model": "ref", "from": "ref", "stream": False, **members}
    reply = await server.ask(CREATE, body)
    assert reply.json() == {"status": "success"}, reply.body


async def test_edge_25_progress_in_one_piece_is_its_last_word(server: Server, ref: str) -> None:
    body = {"model": "b", "from": ref}
    streamed = (await server.ask(CREATE, body)).body.splitlines()
    whole = await server.ask(CREATE, body | {"stream": False})
    assert len(streamed) > 2
    assert whole.body == streamed[-1] == b'{"status":"success"}'


async def test_edge_26_names_in_any_case_keep_one_manifest(server: Server, ref: str) -> None:
    await server.ask(CREATE, {"model": "LIBRARY/Ref:LATEST", "from": "REF", "stream": False})
    await server.ask("POST /api/copy", {"source": "rEf", "destination": "REF:Latest"})
    assert manifests(server) == ["registry.ollama.ai/library/ref/latest"]
    assert (await server.ask(DELETE, {"model": "REF"})).status == 200
    assert manifests(server) == []


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("ref:Q4_K_M", True),
        ("Ref:v1.2-B_c", True),
        ("host:5000/ns/ref:x", True),
        ("h" * 350 + "/ns/ref", True),
        ("h" * 351 + "/ns/ref", False),
        ("r" * 80, True),
        ("r" * 81, False),
        ("ref:" + "t" * 81, False),
        ("host/n:s/ref", False),
        ("host/n.s/ref", False),
        ("-ref", False),
        ("ref:-t", False),
    ],
)
async def test_edge_27_what_a_name_may_be(server: Server, name: str, valid: bool) -> None:
    reply = await server.ask("POST /api/generate", {"model": name})
    assert reply.status == (404 if valid else 400)


async def test_edge_28_hidden_and_deep_files_are_no_manifests(server: Server, ref: str) -> None:
    root = server.settings.models / "manifests"
    real = root / "registry.ollama.ai/library/ref/latest"
    for stray in (
        "registry.ollama.ai/library/ref/.DS_Store",
        "registry.ollama.ai/library/.hidden/latest",
        "registry.ollama.ai/library/ref/deep/er",
        "registry.ollama.ai/library/shallow",
        ".git/library/ref/latest",
    ):
        (root / stray).parent.mkdir(parents=True, exist_ok=True)
        (root / stray).write_bytes(real.read_bytes())
    models = (await server.ask("GET /api/tags")).json()["models"]
    assert [m["name"] for m in models] == ["ref:latest"]


async def test_edge_29_delete_keeps_what_is_shared(server: Server, ref: str) -> None:
    await server.ask(CREATE, {"model": "own", "from": ref, "system": "mine", "stream": False})
    before = blobs(server)
    await server.ask("POST /api/copy", {"source": "own", "destination": "x:20b-cloud"})
    await server.ask(DELETE, {"model": "own"})
    assert blobs(server) == before, "the copy still names them"
    reply = await server.ask(DELETE, {"model": "X:20B:cloud"})
    assert reply.status == 200
    assert digest_of("mine") not in blobs(server)
    assert (await server.ask(SHOW, {"model": ref})).status == 200
    reply = await server.ask(DELETE, {"model": "No/Such:One"})
    assert (reply.status, reply.json()) == (404, {"error": "model 'No/Such:One' not found"})


async def test_edge_30_a_replaced_template_and_system_are_removed(server: Server, ref: str) -> None:
    await make(server, template="{{ .Prompt }} one", system="old")
    assert {digest_of("{{ .Prompt }} one"), digest_of("old")} <= blobs(server)
    await make(server, template="{{ .Prompt }} two", system="new")
    assert layers(server)["template"] == ["{{ .Prompt }} two"]
    assert layers(server)["system"] == ["new"]
    assert not {digest_of("{{ .Prompt }} one"), digest_of("old")} & blobs(server)


async def test_edge_31_parameters_merge_and_lists_are_replaced(server: Server, ref: str) -> None:
    first = {"temperature": 1, "top_k": 10, "stop": ["USER:", "ASSISTANT:"]}
    await make(server, parameters=first)
    text = '{"stop":["USER:","ASSISTANT:"],"temperature":1,"top_k":10}\n'
    assert layers(server)["params"] == [text]
    digest = digest_of(text)
    assert (digest[:15], digest[-4:]) == ("sha256-1d0ad712", "1e37")
    await make(server, parameters={"temperature": 0.6, "top_p": 0.7, "stop": ["</s>"]})
    text = '{"stop":["\\u003c/s\\u003e"],"temperature":0.6,"top_k":10,"top_p":0.7}\n'
    assert layers(server)["params"] == [text]


async def test_edge_32_each_license_is_a_blob(server: Server, ref: str) -> None:
    await make(server, license=["MIT", "Apache"])
    assert layers(server)["license"] == ["MIT", "Apache"]
    shown = (await server.ask(SHOW, {"model": ref})).json()
    assert shown["license"] == "MIT\nApache"
    await make(server, license="BSD")
    assert layers(server)["license"] == ["MIT", "Apache", "BSD"], "they are added to"


@pytest.mark.parametrize("template", ["{{ .Prompt", "{{ if .Prompt }}", "{{ unknown .Prompt }}"])
async def test_edge_33_bad_templates(server: Server, ref: str, template: str) -> None:
    reply = await server.ask(CREATE, {"model": "b", "from": ref, "template": template})
    assert reply.status == 400
    assert reply.json()["error"].startswith("template error: template: ")


@pytest.mark.parametrize(
    ("info", "error"),
    [
        ({"model_family": 5}, 'info field "model_family" must be a string'),
        ({"base_name": []}, 'info field "base_name" must be a string'),
        ({"context_length": "x"}, 'info field "context_length" must be a number'),
        ({"context_length": 1.5}, 'info field "context_length" must be a non-negative integer'),
        ({"embedding_length": -1}, 'info field "embedding_length" must be a non-negative integer'),
    ],
)
async def test_edge_34_info_of_the_wrong_type(
    server: Server, ref: str, info: dict[str, Any], error: str
) -> None:
    reply = await server.ask(CREATE, {"model": "b", "from": ref, "info": info})
    assert (reply.status, reply.json()) == (400, {"error": error})


@pytest.mark.parametrize("member", ["files", "adapters", "draft_files"])
async def test_edge_35_files_without_a_digest(server: Server, ref: str, member: str) -> None:
    body = {"model": "b", "from": ref, member: {"a.gguf": ""}}
    reply = await server.ask(CREATE, body)
    assert (reply.status, reply.json()) == (400, {"error": "invalid digest format"})


async def test_edge_36_what_a_stub_of_a_remote_model_shows(server: Server, ref: str) -> None:
    """Such a model comes with a store that Ollama filled: its config says where it runs."""
    known = {"model_family": "gptoss", "context_length": 131072, "embedding_length": 2880}
    for config, info in (
        (
            {**known, "base_name": "gpt-oss"},
            {
                "general.architecture": "gptoss",
                "general.basename": "gpt-oss",
                "gptoss.context_length": 131072,
                "gptoss.embedding_length": 2880,
            },
        ),
        ({}, {}),
    ):
        _write_stub(server, config)
        reply = await server.ask(SHOW, {"model": "stub"})
        assert reply.json()["model_info"] == info
        assert reply.json()["remote_model"] == "gpt-oss:120b"
    for route, body in (("POST /api/generate", {}), ("POST /api/chat", {}), (SHOW, {})):
        reply = await server.ask(route, {"model": "stub:local", **body})
        assert reply.status == 404
    for route in ("POST /api/generate", "POST /api/chat", "POST /api/embed"):
        reply = await server.ask(route, {"model": "stub"})
        assert reply.status == 403
        assert reply.json()["error"] == "ollama cloud is disabled: remote model is unavailable"


def _write_stub(server: Server, config: dict[str, Any]) -> None:
    models = server.settings.models
    config |= {"remote_host": "https://ollama.com:443", "remote_model": "gpt-oss:120b"}
    data = json.dumps(config | {"architecture": "amd64", "os": "linux"}).encode()
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    (models / "blobs" / digest.replace(":", "-")).write_bytes(data)
    kind = "application/vnd.docker.container.image.v1+json"
    manifest = {"schemaVersion": 2, "config": {"mediaType": kind, "digest": digest}, "layers": []}
    manifest["config"]["size"] = len(data)  # type: ignore[index]
    path = models / "manifests/registry.ollama.ai/library/stub/latest"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(manifest))


async def test_edge_37_show_sees_a_model_that_changed(server: Server, ref: str) -> None:
    assert "system" not in (await server.ask(SHOW, {"model": ref})).json()
    await make(server, system="new")
    assert (await server.ask(SHOW, {"model": ref})).json()["system"] == "new"
    own = (await server.ask(SHOW, {"model": ref, "system": "own", "options": {"seed": 4}})).json()
    assert own["system"] == "own"
    assert "SYSTEM own" in own["modelfile"]
    assert "PARAMETER seed 4" in own["modelfile"]
    after = (await server.ask(SHOW, {"model": ref})).json()
    assert after["system"] == "new"
    assert "PARAMETER seed" not in after["modelfile"]
    plain, verbose = after, (await server.ask(SHOW, {"model": ref, "verbose": True})).json()
    assert list(plain) == list(verbose)


async def test_edge_38_listings_notice_what_changed_on_disk(server: Server, ref: str) -> None:
    async def listed() -> list[str]:
        return [m["name"] for m in (await server.ask("GET /api/tags")).json()["models"]]

    manifest = server.settings.models / "manifests/registry.ollama.ai/library/ref/latest"
    other = manifest.parent / "other"
    other.write_bytes(manifest.read_bytes())
    os.utime(other, (time.time() + 5, time.time() + 5))
    assert await listed() == ["ref:other", "ref:latest"]
    manifest.unlink()
    assert await listed() == ["ref:other"]
    other.write_text("broken")
    assert await listed() == []


async def test_edge_50_young_orphans_survive_a_start(tmp_path: Path) -> None:
    models = tmp_path / "models"
    async with serving(models) as server:
        await server.ask("GET /api/tags")
    young, old = models / "blobs" / digest_of("young"), models / "blobs" / digest_of("old")
    for path in (young, old):
        path.write_text(path.stem)
    hours_ago = time.time() - 2 * 3600
    os.utime(old, (hours_ago, hours_ago))
    async with serving(models) as server:
        assert blobs(server) == {young.name}


async def test_a_bare_model_has_the_config_of_the_golden_check(
    server: Server, tmp_path: Path
) -> None:
    """§5: the config blob of a GGUF of architecture ``test`` hashes to a known digest."""
    file = tmp_path / "test.gguf"
    gguf.write(file, {"general.architecture": "test"}, {})
    data = file.read_bytes()
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    await server.ask(f"POST /api/blobs/{digest}", data)
    body = {"model": "bare", "files": {"test.gguf": digest}, "stream": False}
    reply = await server.ask(CREATE, body)
    assert reply.json() == {"status": "success"}
    path = server.settings.models / "manifests/registry.ollama.ai/library/bare/latest"
    config = json.loads(path.read_bytes())["config"]["digest"]
    assert (config[:15], config[-4:]) == ("sha256:99759ad5", "bc8c")
