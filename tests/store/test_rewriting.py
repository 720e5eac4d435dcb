"""Files written anew: quantised, copied, joined, given a projector type. By llama.cpp, in children."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from lhama_testing_models import split, tiny_llama
from lhama_testing_store import make, run

from lhama.daemon.errors import BadRequest, LhamaError
from lhama.daemon.protocol.types import CreateRequest
from lhama.daemon.store import Digest, Store, manifests
from lhama.plugins import gguf
from lhama.plugins.gguf import GGUF


@pytest.fixture
def f16(store: Store, tmp_path: Path) -> str:
    return upload(store, tiny_llama(tmp_path / "f16.gguf"))


def upload(store: Store, path: Path) -> str:
    return str(store.blobs.write(path.read_bytes())[0])


def header(store: Store, model: str) -> GGUF:
    return store.get(model).header()


def leftovers(store: Store) -> list[str]:
    return [path.name for path in store.blobs.folder.iterdir() if path.name.startswith(".lhama")]


# ------------------------------------------------------------------------------------- a copy


def test_an_uploaded_model_is_copied(store: Store, f16: str) -> None:
    lines = make(store, model="a", files={"x.gguf": f16})
    [layer] = store.get("a").manifest.layers_of(manifests.MODEL)
    assert str(layer.digest) != f16, "llama.cpp writes the tensors in an order of its own"
    assert lines == [
        "parsing GGUF",
        "verifying conversion",
        f"creating new layer {layer.digest}",
        "writing manifest",
        "success",
    ]
    assert layer.source == ""
    assert store.blobs.exists(Digest.parse(f16)), "the upload stays until it is pruned"
    assert leftovers(store) == []


def test_a_copy_holds_the_same_tensors(store: Store, f16: str, tmp_path: Path) -> None:
    make(store, model="a", files={"x.gguf": f16})
    before, after = tensors(gguf.read(tmp_path / "f16.gguf")), tensors(header(store, "a"))
    assert before == after
    assert header(store, "a").metadata["general.quantization_version"] == 2


def tensors(of: GGUF) -> dict[str, tuple[tuple[int, ...], str, bytes]]:
    data = Path(of.path).read_bytes()
    return {
        t.name: (t.shape, t.type_name, data[t.offset : t.offset + t.nbytes])
        for t in of.tensors.values()
    }


def test_what_was_copied_is_not_copied_again(store: Store, f16: str) -> None:
    make(store, model="a", files={"x.gguf": f16})
    lines = make(store, model="b", from_="a")
    assert lines[0].startswith("using existing layer")
    assert store.get("b").files().weights == store.get("a").files().weights


@pytest.mark.parametrize(
    ("key", "value", "ending"),
    [
        ("llama.context_length", "many", "exit status 1"),
        ("llama.block_count", 1 << 20, "signal: aborted"),
    ],
)
def test_a_file_llama_cpp_cannot_read_is_refused_in_ollamas_words(
    store: Store, tmp_path: Path, key: str, value: Any, ending: str
) -> None:
    digest = upload(store, tiny_llama(tmp_path / "x.gguf", **{key: value}))
    with pytest.raises(LhamaError) as refused:
        make(store, model="a", files={"x.gguf": digest})
    assert refused.value.message == (
        "failed to validate GGUF with llama-quantize without compatibility patches: "
        f"llama-quantize failed: {ending}"
    )
    assert refused.value.status == 500
    assert store.list() == []
    assert leftovers(store) == []


def test_a_model_with_an_encoder_inside_stays_as_it_is(store: Store, tmp_path: Path) -> None:
    """llama.cpp's copy might lose what it does not know."""
    path = tmp_path / "x.gguf"
    keys = {"general.architecture": "llama", "general.file_type": 1}
    gguf.write(path, keys, {"v.patch": ((4,), "F32", bytes(16))})
    digest = upload(store, path)
    make(store, model="a", files={"x.gguf": digest})
    assert store.get("a").files().weights.endswith(digest[7:])
    with pytest.raises(LhamaError, match="cannot be quantized to Q8_0 here: the file holds more"):
        make(store, model="b", from_="a", quantize="q8_0")


# --------------------------------------------------------------------------------- quantising


@pytest.mark.parametrize(
    ("asked", "level", "types"),
    [
        ("q8_0", "Q8_0", {"Q8_0", "F32"}),
        ("Q4_K_M", "Q4_K_M", {"Q4_K", "Q6_K", "F32"}),
        ("q4_k_s", "Q4_K_S", {"Q4_K", "Q5_K", "Q6_K", "F32"}),
        ("Q4_K", "Q4_K_M", {"Q4_K", "Q6_K", "F32"}),
        ("bf16", "BF16", {"BF16", "F32"}),
        ("F32", "F32", {"F32"}),
    ],
)
def test_quantizing(store: Store, f16: str, asked: str, level: str, types: set[str]) -> None:
    lines = run(store, CreateRequest(model="a", files={"x.gguf": f16}, quantize=asked))
    told = [line for line in lines if line.status.startswith("quantizing")]
    size = store.blobs.size(Digest.parse(f16))
    assert told
    assert {line.status for line in told} == {f"quantizing F16 model to {asked.upper()}"}
    assert {line.digest for line in told} == {"0" * 19}
    assert {line.total for line in told} == {size}
    done = [line.completed for line in told]
    assert done == sorted(done)
    assert done[-1] <= size
    rest = [line.status for line in lines if line not in told]
    assert rest[:2] == ["parsing GGUF", "verifying conversion"]
    assert rest[2].startswith("creating new layer")
    assert {t.type_name for t in header(store, "a").tensors.values()} == types
    model = store.get("a")
    # 0 is F32's number and that of no type: Ollama shows both as unknown.
    assert model.config.file_type == ("unknown" if level == "F32" else level)
    assert leftovers(store) == []


def test_quantizing_a_model_that_is_there(store: Store, f16: str) -> None:
    make(store, model="a", files={"x.gguf": f16}, system="S")
    lines = make(store, model="b", from_="a", quantize="Q8_0")
    assert "verifying conversion" in lines
    assert store.get("b").parent == "", "the layer is a new one"
    assert store.get("b").system == "S"
    assert header(store, "a").metadata["general.file_type"] == 1
    assert header(store, "b").metadata["general.file_type"] == 7


def test_the_old_field_of_quantize(store: Store, f16: str) -> None:
    make(store, model="a", files={"x.gguf": f16}, quantization="Q8_0")
    assert header(store, "a").metadata["general.file_type"] == 7


def test_a_model_of_the_type_asked_for_is_only_copied(store: Store, f16: str) -> None:
    lines = make(store, model="a", files={"x.gguf": f16}, quantize="f16")
    assert not any(line.startswith("quantizing") for line in lines)
    before = store.get("a").files().weights
    lines = make(store, model="b", from_="a", quantize="f16")
    assert lines[0].startswith("using existing layer")
    assert store.get("b").files().weights == before


def test_f32_is_quantized_too(store: Store, tmp_path: Path) -> None:
    digest = upload(store, tiny_llama(tmp_path / "f32.gguf", "F32"))
    lines = make(store, model="a", files={"x.gguf": digest}, quantize="Q8_0")
    assert "quantizing F32 model to Q8_0" in lines


def test_replacing_a_model_by_its_quantization_removes_the_old_weights(
    store: Store, f16: str
) -> None:
    make(store, model="a", files={"x.gguf": f16})
    old = Path(store.get("a").files().weights)
    make(store, model="a", from_="a", quantize="Q8_0")
    assert not old.exists()
    assert header(store, "a").metadata["general.file_type"] == 7


def test_a_failed_create_leaves_no_blobs_of_its_own(store: Store, f16: str) -> None:
    before = sorted(path.name for path in store.blobs.folder.iterdir())
    with pytest.raises(BadRequest, match="template error"):
        make(store, model="a", files={"x.gguf": f16}, quantize="Q8_0", template="{{ if }}")
    assert sorted(path.name for path in store.blobs.folder.iterdir()) == before


def test_a_declared_tensor_beyond_the_file_never_reaches_a_child(
    store: Store, f16: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CVE-2026-7482: the quantiser would read on, and its output would hold what it found."""
    make(store, model="a", files={"x.gguf": f16})
    weights = Path(store.get("a").files().weights)
    weights.write_bytes(weights.read_bytes()[:-1000])

    async def no_process(*arguments: object, **options: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", no_process)
    with pytest.raises(BadRequest, match="is damaged: truncated"):
        make(store, model="b", from_="a", quantize="Q8_0")
    (tmp_path / "cut.gguf").write_bytes((tmp_path / "f16.gguf").read_bytes()[:-1000])
    cut = upload(store, tmp_path / "cut.gguf")
    for quantize in ("", "Q8_0"):
        with pytest.raises(BadRequest, match="is damaged: truncated"):
            make(store, model="b", files={"x.gguf": cut}, quantize=quantize)
    assert leftovers(store) == []


# ------------------------------------------------------------------------------- split models


def shards(store: Store, tmp_path: Path) -> dict[str, str]:
    paths = split(tiny_llama(tmp_path / "whole.gguf"), tmp_path)
    return {path.name: upload(store, path) for path in paths}


def test_shards_are_joined(store: Store, tmp_path: Path) -> None:
    lines = make(store, model="a", files=shards(store, tmp_path))
    assert lines[:3] == ["parsing GGUF", "parsing GGUF", "verifying conversion"]
    joined = header(store, "a")
    assert tensors(joined) == tensors(gguf.read(tmp_path / "whole.gguf"))
    assert not any(key.startswith("split.") for key in joined.metadata)
    assert len(store.get("a").weights) == 1
    assert leftovers(store) == []


def test_shards_are_quantized_together(store: Store, tmp_path: Path) -> None:
    make(store, model="a", files=shards(store, tmp_path), quantize="Q8_0")
    assert header(store, "a").metadata["general.file_type"] == 7
    assert len(header(store, "a").tensors) == 11


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("tiny.gguf", ""), 'split GGUF "tiny.gguf" must use llama.cpp split filename pattern'),
        (
            ("t-00001-of-00002.gguf", ""),
            'split GGUF "t-00001-of-00002.gguf" has 1 shards, expected 2',
        ),
        (("t-00001-of-00003.gguf", ""), "filename count 3 does not match metadata count 2"),
        (("t-00002-of-00002.gguf", ""), "filename index 1 does not match metadata index 0"),
        (("t-00001-of-00002.gguf", "u-00002-of-00002.gguf"), "has 1 shards, expected 2"),
    ],
)
def test_shards_that_do_not_fit(
    store: Store, tmp_path: Path, names: tuple[str, str], message: str
) -> None:
    digests = shards(store, tmp_path).values()
    files = {name: digest for name, digest in zip(names, digests, strict=True) if name}
    with pytest.raises(LhamaError) as refused:
        make(store, model="a", files=files)
    assert message in refused.value.message
    assert refused.value.status == 500


# ------------------------------------------------------------------------ drafts and projectors


def test_a_draft_is_carried_along(store: Store, f16: str, tmp_path: Path) -> None:
    make(store, model="base", files={"x.gguf": f16})
    draft = upload(store, tiny_llama(tmp_path / "draft.gguf", seed=1))
    make(store, model="a", from_="base", draft_files={"draft.gguf": draft})
    [layer] = store.get("a").manifest.layers_of(manifests.DRAFT)
    assert (str(layer.digest), layer.source) == (draft, "draft.gguf")
    config = store.get("a").config
    assert config.draft is not None
    assert (config.draft.model_format, config.draft.architecture) == ("gguf", "llama")
    assert len(store.get("a").weights) == 1
    make(store, model="b", from_="a")
    assert store.get("b").config.draft == config.draft
    lines = make(
        store, model="c", from_="base", draft_files={"draft.gguf": draft}, draft_quantize="q8_0"
    )
    assert "quantizing F16 model to Q8_0" in lines
    [layer] = store.get("c").manifest.layers_of(manifests.DRAFT)
    assert store.header(store.blobs.path(layer.digest)).metadata["general.file_type"] == 7
    assert header(store, "c").metadata["general.file_type"] == 1


def test_an_old_projector_gets_its_type(store: Store, f16: str, tmp_path: Path) -> None:
    keys = {"general.architecture": "clip", "clip.has_vision_encoder": True, "long": ["x"] * 2000}
    path = tmp_path / "mmproj.gguf"
    values = {f"v.{n}": ((8,), "F32", bytes([n] * 32)) for n in range(3)}
    gguf.write(path, keys, values)
    files = {"x.gguf": f16, "mmproj.gguf": upload(store, path)}
    lines = make(store, model="a", files=files)
    assert "updating GGUF projector metadata" in lines
    [projector] = store.get("a").projector_headers()
    assert projector.metadata["clip.projector_type"] == "mlp"
    assert projector.array_length("long") == 2000
    assert tensors(projector) == tensors(gguf.read(path))


# ------------------------------------------------------------------------------------ remotes


@pytest.mark.parametrize(
    ("source", "host", "remote"),
    [
        ("big:cloud", "", ("big", "https://ollama.com:443")),
        ("big:120b-cloud", "", ("big:120b", "https://ollama.com:443")),
        ("big", "ollama.com", ("big", "https://ollama.com:443")),
        ("big", "example.com", ("big", "http://example.com:11434")),
        ("big", "https://example.com:8443/api/", ("big", "https://example.com:8443/api")),
        ("big", "/a/../b", ("big", "http://localhost:11434/b")),
    ],
)
def test_a_remote_model_is_an_address(
    store: Store, source: str, host: str, remote: tuple[str, str]
) -> None:
    info = {"model_family": "llama", "context_length": 5}
    lines = make(store, model="a", from_=source, remote_host=host, system="S", info=info)
    assert lines[-2:] == ["writing manifest", "success"]
    model = store.get("a")
    assert (model.config.remote_model, model.config.remote_host) == remote
    assert model.weights == ()
    assert (model.system, model.config.context_length) == ("S", 5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"remote_host": "http://h:port"}, "bad remote"),
        ({"remote_host": "h h"}, "bad remote"),
        (
            {"remote_host": "h", "draft_files": {"d.gguf": "sha256:" + "0" * 64}},
            "DRAFT cannot be used with remote models",
        ),
    ],
)
def test_bad_remotes(store: Store, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest) as refused:
        make(store, model="a", from_="big", **fields)
    assert refused.value.message == message


# ------------------------------------------------------------------------------------- pickles


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.ckpt"])
def test_pickles_are_never_read(store: Store, name: str) -> None:
    digest = str(store.blobs.write(b"\x80\x04\x95\x0e\x00\x00\x00\x00\x00\x00\x00\x8c\x02os")[0])
    with pytest.raises(BadRequest, match="^unknown type$"):
        make(store, model="a", files={name: digest, "config.json": digest})


# --------------------------------------------------------------------------- names that climb


@pytest.mark.parametrize(
    "name", ["../a.safetensors", "/tmp/a.safetensors", "x/../../a.safetensors"]
)
def test_a_name_cannot_lead_out_of_the_folder_that_is_converted(
    store: Store, f16: str, name: str
) -> None:
    make(store, model="base", files={"x.gguf": f16})
    before = sorted(path.name for path in store.root.rglob("*"))
    with pytest.raises(BadRequest) as refused:
        make(store, model="a", from_="base", adapters={name: f16})
    assert refused.value.message == f"file path must be relative: {name}"
    assert sorted(path.name for path in store.root.rglob("*")) == before
    assert not Path("/tmp/a.safetensors").exists()
