"""Creating models: the recordings replayed, and what they do not show."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from lhama_testing_golden import Recording
from lhama_testing_store import (
    make,
    no_registry,
    recordings,
    run,
    tiny_gguf,
)
from lhama_testing_worker import worker

from lhama.daemon.config import Settings
from lhama.daemon.errors import BadRequest, LhamaError, StoreError
from lhama.daemon.protocol import goencode, gojson
from lhama.daemon.protocol.replies import error_body
from lhama.daemon.protocol.types import CreateRequest, Message
from lhama.daemon.store import Digest, Store, create, manifests
from lhama.daemon.worker import Worker
from lhama.plugins.registry import Registry

NEEDS_A_REGISTRY = {
    "create_from_missing_http",
    "create_from_missing_loopback",
    "create_from_pulled",
}


def upload(store: Store, path: Path, **metadata: Any) -> str:
    return str(store.blobs.write(tiny_gguf(path, **metadata))[0])


def test_recorded_creates(real: Store) -> None:
    """Every recorded create, in order: status, lines or error text, to the byte."""
    real.blobs.write(b"hello blob")
    for seen in recordings("create"):
        if seen.name in NEEDS_A_REGISTRY:
            continue
        status, reply = answer(real, seen)
        assert (seen.name, status) == (seen.name, seen.status)
        expected = seen.reply.replace("/models/blobs", str(real.blobs.folder))
        # What was new to the recorded store need not be new to this one.
        expected = expected.replace("creating new layer", "using existing layer")
        assert (seen.name, reply) == (seen.name, expected)


def answer(store: Store, seen: Recording) -> tuple[int, str]:
    try:
        request = gojson.decode(seen.body, CreateRequest)
        lines = [goencode.encode(progress).decode() for progress in run(store, request)]
    except LhamaError as error:
        return error.status, error_body(error.message).decode()
    if request.stream is False:
        return 200, lines[-1]
    text = "".join(line + "\n" for line in lines)
    return 200, text.replace("creating new layer", "using existing layer")


def test_gemma_has_ollamas_digest(real: Store) -> None:
    """The same manifest, byte for byte, as the recorded server wrote for this file."""
    recorded = json.loads(next(r for r in recordings("general") if r.name == "general_tags").reply)
    assert real.get("gemma3:270m").digest == recorded["models"][0]["digest"]


def test_golden_digest_of_parameters(store: Store, tiny: str) -> None:
    """Asserted by one of Ollama's own tests."""
    given = {"temperature": 1, "top_k": 10, "stop": ["USER:", "ASSISTANT:"]}
    make(store, model="a", files={"x.gguf": tiny}, parameters=given)
    [layer] = store.get("a").manifest.layers_of(manifests.PARAMS)
    assert layer.digest.hex.startswith("1d0ad712")
    assert layer.digest.hex.endswith("1e37")


# ------------------------------------------------------------------------------------ from files


def test_files(store: Store, tiny: str) -> None:
    assert make(store, model="a", files={"any.gguf": tiny}) == [
        "parsing GGUF",
        "verifying conversion",
        f"using existing layer {tiny}",
        "writing manifest",
        "success",
    ]
    model = store.get("a")
    assert (model.parent, model.config.model_family) == ("", "test")
    assert model.config.model_families == ["test"]
    assert (model.config.model_type, model.config.file_type) == ("4", "unknown")


def test_a_file_without_the_suffix_is_known_by_its_magic(store: Store, tiny: str) -> None:
    assert make(store, model="a", files={"model.bin": tiny})[-1] == "success"


def test_roles_by_metadata(store: Store, tiny: str, tmp_path: Path) -> None:
    projector = upload(store, tmp_path / "p", general__type="mmproj")
    vision = upload(store, tmp_path / "v", **{"test.vision.block_count": 3})
    keys = {"general.architecture": "clip", "clip.has_vision_encoder": True}
    clip = upload(store, tmp_path / "c", **keys, **{"clip.projector_type": "mlp"})
    adapter = upload(store, tmp_path / "a", general__type="adapter")
    files = {"m.gguf": tiny, "p": projector, "v": vision, "c": clip, "a": adapter}
    make(store, model="x", files=files)
    model = store.get("x")
    assert model.files().weights.endswith(tiny[7:])
    assert {Path(p).name[7:] for p in model.files().projectors} == {
        d[7:] for d in (projector, vision, clip)
    }
    assert [Path(p).name[7:] for p in model.files().adapters] == [adapter[7:]]
    assert model.capabilities == ["completion", "vision"]


@pytest.mark.parametrize(
    ("files", "status", "message"),
    [
        ({"../m.gguf": "D"}, 400, "file path must be relative"),
        ({"/m.gguf": "D"}, 400, "file path must be relative"),
        ({"a//m.gguf": "D"}, 400, "file path must be relative"),
        ({"": "D"}, 400, "file path must be relative"),
        ({"m.gguf": ""}, 400, "invalid digest format"),
        ({"m.gguf": "sha256:../../x"}, 500, "invalid digest format"),
        ({"m.safetensors": "D"}, 500, "config.json"),
        ({"m.gguf": "D", "n.gguf": "D"}, 400, "one model file is needed, 2 were given"),
        ({"m.gguf": "T"}, 400, "the GGUF file sha256:.* is damaged: truncated"),
        ({"m.gguf": "S"}, 500, "must use llama.cpp split filename pattern"),
    ],
)
def test_refused_files(
    store: Store, tiny: str, tmp_path: Path, files: dict[str, str], status: int, message: str
) -> None:
    digests = {
        "D": tiny,
        "T": str(store.blobs.write(tiny_gguf(tmp_path / "t")[:-20])[0]),
        "S": upload(store, tmp_path / "s", **{"split.count": 2}),
    }
    with pytest.raises(LhamaError, match=message) as refused:
        make(store, model="a", files={p: digests.get(d, d) for p, d in files.items()})
    assert refused.value.status == status
    assert store.list() == []


def test_a_template_is_found(store: Store, tmp_path: Path) -> None:
    """A ChatML Jinja text brings the Go template and its stops."""
    jinja = (
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + "
        "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    digest = upload(store, tmp_path / "x", **{"tokenizer.chat_template": jinja})
    assert "using autodetected template chatml" in make(store, model="a", files={"x.gguf": digest})
    model = store.get("a")
    assert model.parameters == {"stop": ["<|im_start|>", "<|im_end|>"]}
    assert model.template == model.go_template != ""
    assert model.chat_template == jinja


def test_renderers_by_architecture(store: Store, tmp_path: Path) -> None:
    digest = upload(store, tmp_path / "x", **{"general.architecture": "gemma4"})
    # No tools: llama.cpp would find nothing to run in this file.
    make(store, tools=Worker(Settings(), Registry()), model="a", files={"x.gguf": digest})
    model = store.get("a")
    assert (model.config.renderer, model.config.parser) == ("gemma4", "gemma4")
    assert model.parameters == {"stop": ["<turn|>"]}


# ------------------------------------------------------------------------------- from a model


def test_inheritance(store: Store, tiny: str) -> None:
    make(
        store,
        model="base",
        files={"x.gguf": tiny},
        template="{{ .Prompt }}!",
        system="base system",
        license="L1",
        parameters={"temperature": 1, "stop": ["a", "b"], "seed": 4},
        messages=[Message(role="USER", content="hi")],
        renderer="r",
        parser="p",
        requires="1.2.3",
        info={"capabilities": ["tools"], "context_length": 5},
    )
    make(
        store,
        model="child",
        from_="BASE",
        license=["L2", "L3"],
        system="",
        parameters={"stop": ["c"], "top_k": 2},
    )
    child = store.get("child")
    assert child.parent == "base:latest"
    assert (child.go_template, child.system) == ("{{ .Prompt }}!", "base system")
    assert child.licenses == ("L1", "L2", "L3")
    assert child.parameters == {"temperature": 1, "stop": ["c"], "seed": 4, "top_k": 2}
    assert [(m.role, m.content) for m in child.messages] == [("user", "hi")]
    config = child.config
    assert (config.renderer, config.parser, config.requires) == ("r", "p", "1.2.3")
    assert config.capabilities == ["tools"]
    assert config.context_length == 0
    make(store, model="child", from_="child", messages=[Message(role="system", content="x")])
    assert [m.content for m in store.get("child").messages] == ["x"]


def test_replaced_layers_are_removed(store: Store, tiny: str) -> None:
    make(store, model="a", files={"x.gguf": tiny}, template="{{ .Prompt }}1", system="one")
    make(store, model="a", from_="a", template="{{ .Prompt }}2", system="two")
    left = set(os.listdir(store.blobs.folder))
    assert Digest.of(b"one").filename not in left
    assert Digest.of(b"{{ .Prompt }}1").filename not in left
    used = store.get("a").manifest.digests
    assert left == {digest.filename for digest in used}


def test_messages_keep_tool_calls_and_images(store: Store, tiny: str) -> None:
    body = json.dumps(
        {
            "model": "a",
            "files": {"x.gguf": tiny},
            "messages": [
                {"role": "user", "content": "<look>", "images": ["aGk="]},
                {
                    "role": "assistant",
                    "tool_calls": [{"function": {"name": "f", "arguments": {"z": 1, "a": [1.5]}}}],
                },
                {"role": "tool", "content": "r", "tool_name": "f", "tool_call_id": "call_1"},
            ],
        }
    )
    run(store, gojson.decode(body.encode(), CreateRequest))
    user, assistant, tool = store.get("a").messages
    assert user.images == [b"hi"]
    assert assistant.tool_calls[0].arguments == {"z": 1, "a": [1.5]}
    assert (tool.tool_name, tool.tool_call_id) == ("f", "call_1")
    [layer] = store.get("a").manifest.layers_of(manifests.MESSAGES)
    assert store.blobs.read(layer.digest) == (
        b'[{"role":"user","content":"\\u003clook\\u003e","images":["aGk="]},'
        b'{"role":"assistant","content":"","tool_calls":[{"function":{"index":0,"name":"f",'
        b'"arguments":{"z":1,"a":[1.5]}}}]},'
        b'{"role":"tool","content":"r","tool_name":"f","tool_call_id":"call_1"}]\n'
    )


@pytest.mark.parametrize(
    ("fields", "status", "message"),
    [
        ({"from_": "nope"}, 500, "pull model manifest: file does not exist"),
        ({"from_": "base", "template": "{{ if .X }}"}, 400, "template error: template: :1: "),
        ({"from_": "base", "draft_files": {"d.gguf": "x"}}, 400, "invalid digest format"),
        ({"from_": "base", "draft_quantize": "Q8_0"}, 400, "--draft-quantize requires a DRAFT"),
        ({"from_": "base", "adapters": {"a.gguf": ""}}, 400, "invalid digest format"),
        ({"from_": "base", "adapters": {"a.gguf": "D"}}, 400, "the adapter is no adapter"),
        (
            {"from_": "base", "adapters": {"a.gguf": "D", "b.gguf": "D"}},
            400,
            "only one adapter is currently supported",
        ),
        ({"from_": "base", "license": [1]}, 500, "cannot unmarshal number into Go value"),
        ({"from_": "base", "quantize": "q8_0"}, 500, "quantization is only supported for F16"),
        ({"from_": "f16", "quantize": "q8_0"}, 500, "llama.cpp does not know the architecture"),
        ({"from_": "base", "info": {"base_name": 1}}, 400, 'info field "base_name" must be a str'),
        ({"from_": "base", "info": {"context_length": "1"}}, 400, "must be a number"),
        ({"from_": "base", "info": {"context_length": True}}, 400, "must be a number"),
        ({"from_": "base", "info": {"context_length": 1.5}}, 400, "must be a non-negative integer"),
        ({"from_": "base", "info": {"embedding_length": -1}}, 400, "must be a non-negative int"),
        ({"from_": "base", "model": "../x"}, 400, "invalid model name"),
        ({"from_": "base", "model": ""}, 400, "invalid model name"),
    ],
)
def test_refused(
    store: Store, tmp_path: Path, fields: dict[str, Any], status: int, message: str
) -> None:
    tiny = upload(store, tmp_path / "t", general__file_type=2)
    make(store, model="base", files={"x.gguf": tiny})
    make(store, model="f16", files={"x.gguf": upload(store, tmp_path / "f", general__file_type=1)})
    fields = {"model": "new", **fields}
    if "adapters" in fields:
        fields["adapters"] = {p: tiny if d == "D" else d for p, d in fields["adapters"].items()}
    with pytest.raises(LhamaError, match=message) as refused:
        make(store, **fields)
    assert refused.value.status == status
    assert sorted(m.name.model for m in store.list()) == ["base", "f16"]


def test_quantizing_to_what_it_is_does_nothing(store: Store, tmp_path: Path) -> None:
    digest = upload(store, tmp_path / "f", general__file_type=1)
    assert make(store, model="a", files={"x.gguf": digest}, quantize="f16")[-1] == "success"


def test_an_adapter_on_top(store: Store, tiny: str, tmp_path: Path) -> None:
    make(store, model="base", files={"x.gguf": tiny})
    adapter = upload(store, tmp_path / "a", general__type="adapter")
    lines = make(store, model="new", from_="base", adapters={"a.gguf": adapter})
    assert lines[0] == "parsing GGUF"
    assert len(store.get("new").files().adapters) == 1


def test_info_overrides(store: Store, tiny: str) -> None:
    info = {
        "model_family": "fam",
        "base_name": "bn",
        "quantization_level": "Q9",
        "parameter_size": "3B",
        "context_length": 77,
        "embedding_length": 8.0,
    }
    make(store, model="a", files={"x.gguf": tiny}, info=info)
    config = store.get("a").config
    assert (config.model_family, config.model_families) == ("fam", ["fam", "test"])
    assert (config.base_name, config.file_type, config.model_type) == ("bn", "Q9", "3B")
    assert (config.context_length, config.embedding_length) == (77, 8)


def test_checks_before_anything_is_done(store: Store) -> None:
    with pytest.raises(BadRequest, match="invalid model name"):
        create.check(CreateRequest(model="bad name!"))
    assert create.check(CreateRequest(name="old")).short == "old:latest"
    assert create.check(CreateRequest(model="m", name="old")).short == "m:latest"


async def test_an_abandoned_create_is_not_listed(store: Store, tiny: str) -> None:
    request = CreateRequest(model="a", files={"x.gguf": tiny}, system="S")
    lines = create.create(store, request, no_registry, worker())
    async for progress in lines:
        if progress.status == "writing manifest":
            break
    await lines.aclose()
    assert await asyncio.to_thread(store.list) == []
    assert not store._pins


def test_a_vanished_blob_stops_the_create(store: Store, tiny: str) -> None:
    make(store, model="a", files={"x.gguf": tiny}, system="S")
    store.blobs.path(Digest.of(b"S")).unlink()
    with pytest.raises(StoreError, match="no such file or directory"):
        make(store, model="b", from_="a")
    assert [m.name.model for m in store.list()] == []
