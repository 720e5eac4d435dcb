"""What is shown equals the recordings, byte for byte but for times and paths."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import msgspec
import pytest
from lhama_testing_store import (
    make,
    recording,
    recordings,
    tiny_gguf,
)

from lhama.daemon.errors import ModelNotFound, StoreError
from lhama.daemon.prompt import gotext
from lhama.daemon.protocol import goencode, gojson
from lhama.daemon.protocol.replies import error_body
from lhama.daemon.protocol.source import split_source
from lhama.daemon.protocol.types import CreateRequest, ShowRequest
from lhama.daemon.store import Digest, ModelName, Store, show
from lhama.daemon.store.details import details

ANSWERED_BY_THE_WEB = {
    "show_bad_json",
    "show_empty_body",
    "show_empty_model",
    "show_wrong_type",
    "show_cloud_suffix",
}


def normal(reply: str) -> str:
    reply = re.sub(r"FROM \S*?/blobs/sha256-", "FROM <blobs>/sha256-", reply)
    return re.sub(r'"modified_at":"[^"]*"', '"modified_at":"<time>"', reply)


def answer(store: Store, body: bytes) -> str:
    request = gojson.decode(body, ShowRequest)
    text = request.model or request.name
    name = ModelName.parse(split_source(text)[0])
    try:
        model = store.get(name)
    except ModelNotFound as error:
        return error_body(error.message).decode()
    reply = show.show(
        model, verbose=request.verbose, system=request.system, options=request.options
    )
    return goencode.encode(reply).decode()


def test_recorded_shows(real: Store) -> None:
    """Every recorded show, the creates and copies between them done as recorded."""
    compared = 0
    for seen in recordings("show", "create", "copy"):
        if seen.path == "/api/show" and seen.name not in ANSWERED_BY_THE_WEB:
            reply = answer(real, seen.body)
            if seen.name == "show_copilot_ua":
                reply = with_basename(real, "smollm2:135m")
            assert (seen.name, normal(reply)) == (seen.name, normal(seen.reply))
            compared += 1
        elif seen.path == "/api/create" and seen.status == 200 and "pulled" not in seen.name:
            request = gojson.decode(seen.body, CreateRequest)
            make(real, **{f: getattr(request, f) for f in request.__struct_fields__})
        elif seen.path == "/api/copy" and seen.status == 200:
            body = json.loads(seen.body)
            source, target = (ModelName.parse(body[key]) for key in ("source", "destination"))
            real.copy(source, target)
    assert compared >= 20


def with_basename(store: Store, name: str) -> str:
    return goencode.encode(show.show(store.get(name), basename=name)).decode()


def test_recorded_tags(real: Store) -> None:
    recorded = json.loads(recording("general_tags").reply)["models"]
    for seen in recorded:
        entry = goencode.encode(show.tags_entry(real.get(seen["name"])))
        ours = json.loads(entry)
        assert list(ours) == list(seen)
        for key in ("name", "model", "size", "details", "capabilities"):
            assert ours[key] == seen[key]
        assert list(ours["details"]) == list(seen["details"])
        if "smollm2" not in seen["name"]:
            assert ours["digest"] == seen["digest"]


def test_verbose_fills_the_arrays(real: Store) -> None:
    model = real.get("gemma3:270m")
    brief = json.loads(goencode.encode(show.show(model)))["model_info"]
    info = json.loads(goencode.encode(show.show(model, verbose=True)))["model_info"]
    assert list(brief) == list(info)
    assert brief["tokenizer.ggml.tokens"] is None
    assert info["tokenizer.ggml.tokens"][:3] == ["<pad>", "<eos>", "<bos>"]
    assert info["tokenizer.ggml.scores"][0] == -1000
    assert len(info["tokenizer.ggml.tokens"]) == len(info["tokenizer.ggml.scores"]) == 262144
    assert info["general.tags"][0] == "gemma3"


def test_odd_metadata_is_still_json(store: Store, tmp_path: Any) -> None:
    data = tiny_gguf(
        tmp_path / "x",
        **{
            "test.nan": float("nan"),
            "test.inf": float("inf"),
            "test.small": 1e-6,
            "test.infs": [float("inf"), 1.5],
            "test.bytes": [b"\xff".decode("utf-8", "surrogateescape")],
            "test.html": "<&>",
            "test.big": 1 << 62,
        },
    )
    digest, _ = store.blobs.write(data)
    make(store, model="a", files={"x.gguf": str(digest)})
    encoded = goencode.encode(show.show(store.get("a"), verbose=True))
    info = json.loads(encoded)["model_info"]
    assert (info["test.nan"], info["test.inf"], info["test.infs"]) == (None, None, [None, 1.5])
    assert info["test.bytes"] == ["\ufffd"]
    assert info["test.big"] == 1 << 62
    assert b'"test.small":0.000001}' in encoded
    assert b'"test.html":"\\u003c\\u0026\\u003e"' in encoded


def test_modelfile_has_everything_in_order(store: Store, tiny: str, tmp_path: Any) -> None:
    projector, _ = store.blobs.write(tiny_gguf(tmp_path / "p", general__type="mmproj"))
    adapter, _ = store.blobs.write(tiny_gguf(tmp_path / "a", general__type="adapter"))
    make(
        store,
        model="a",
        files={"m.gguf": tiny, "p": str(projector), "a": str(adapter)},
        template='{{ .Prompt }}\n"',
        system=" S",
        renderer="r",
        parser="p",
        parameters={"top_k": 2, "stop": [" x", "y"], "penalize": True, "num_ctx": 1048576},
        license="L1\nL2",
    )
    model = store.get("a")
    blob = store.blobs.path
    assert show.show(model, options={"seed": 3}).modelfile == (
        '# Modelfile generated by "ollama show"\n'
        "# To build a new Modelfile based on this, replace FROM with:\n"
        "# FROM a:latest\n"
        "\n"
        f"FROM {blob(Digest.parse(tiny))}\n"
        f"ADAPTER {blob(adapter)}\n"
        f"FROM {blob(projector)}\n"
        'TEMPLATE """{{ .Prompt }}\n""""\n'
        'SYSTEM " S"\n'
        "RENDERER r\n"
        "PARSER p\n"
        "PARAMETER num_ctx 1.048576e+06\n"
        "PARAMETER penalize true\n"
        "PARAMETER seed 3\n"
        'PARAMETER stop " x"\n'
        "PARAMETER stop y\n"
        "PARAMETER top_k 2\n"
        'LICENSE "L1\nL2"\n'
    )
    assert show.show(model).parameters.splitlines()[2] == 'stop                           " x"'
    assert show.show(model).projector_info["general.type"] == "mmproj"
    assert details(model, parent=False).parent_model == ""


def test_remote_stub(store: Store, tiny: str) -> None:
    make(store, model="a", files={"x.gguf": tiny}, requires="1.0")
    model = store.get("a")
    config = msgspec.structs.replace(
        model.config,
        remote_host="https://ollama.com:443",
        remote_model="gpt-oss:120b",
        model_family="gptoss",
        context_length=131072,
        base_name="gpt-oss",
        capabilities=["completion", "tools"],
    )
    object.__setattr__(model, "config", config)
    reply = show.show(model)
    assert reply.model_info == {
        "general.architecture": "gptoss",
        "general.basename": "gpt-oss",
        "gptoss.context_length": 131072,
    }
    assert (reply.remote_model, reply.requires, reply.tensors) == ("gpt-oss:120b", "1.0", [])
    assert reply.capabilities == ["completion", "tools", "thinking"]
    entry = json.loads(goencode.encode(show.tags_entry(model)))
    assert entry["remote_host"] == "https://ollama.com:443"
    assert entry["details"]["context_length"] == 131072


def test_embedding_models(store: Store, tmp_path: Any) -> None:
    digest, _ = store.blobs.write(tiny_gguf(tmp_path / "x", test__pooling_type=1))
    make(store, model="a", files={"x.gguf": str(digest)})
    assert store.get("a").capabilities == ["embedding"]


def test_jinja_that_can_do_more_is_shown(store: Store, tmp_path: Any) -> None:
    jinja = "{% if tools %}{{ tools }}{% endif %}{{ message.tool_calls }}<think></think>"
    digest, _ = store.blobs.write(tiny_gguf(tmp_path / "x", tokenizer__chat_template=jinja))
    make(store, model="a", files={"x.gguf": str(digest)}, template="{{ .Prompt }}")
    model = store.get("a")
    assert model.template == ""
    assert show.show(model).template == jinja
    assert model.capabilities == ["tools", "thinking", "completion"]
    forced = Store(store.root, go_template=True).get("a")
    assert forced.template == "{{ .Prompt }}"
    assert forced.capabilities == ["completion"]
    assert show.show(forced).template == "{{ .Prompt }}"


def test_quantization_is_repaired_from_the_file(store: Store, tmp_path: Any) -> None:
    digest, _ = store.blobs.write(tiny_gguf(tmp_path / "x", general__file_type=15))
    for stored in ("", "unknown"):
        make(store, model="a", files={"x.gguf": str(digest)})
        model = store.get("a")
        config = msgspec.structs.replace(model.config, file_type=stored)
        object.__setattr__(model, "config", config)
        assert details(model).quantization_level == "Q4_K_M"


def test_damaged_weights_are_listed_and_not_shown(store: Store, tiny: str) -> None:
    make(store, model="a", files={"x.gguf": tiny})
    store.blobs.path(Digest.parse(tiny)).unlink()
    model = store.get("a")
    assert show.tags_entry(model).name == "a:latest"
    with pytest.raises(StoreError, match="is missing from the store"):
        show.show(model)


def test_listing_many_models_is_quick(store: Store, tiny: str) -> None:
    make(store, model="a", files={"x.gguf": tiny})
    for number in range(100):
        store.copy(ModelName.parse("a"), ModelName.parse(f"m{number}"))
    begun = time.thread_time()
    assert len([show.tags_entry(model) for model in store.list()]) == 101
    assert time.thread_time() - begun < 1.0


@pytest.mark.parametrize(
    ("value", "plain", "literal"),
    [
        ("x y", "x y", '"x y"'),
        ('a"\n', 'a"\n', '"a\\"\\n"'),
        (1, "1", "1"),
        (1.0, "1", "1"),
        (0.7, "0.7", "0.7"),
        (-2.5, "-2.5", "-2.5"),
        (0, "0", "0"),
        (100000, "100000", "100000"),
        (999999, "999999", "999999"),
        (1000000, "1e+06", "1e+06"),
        (123456789, "1.23456789e+08", "1.23456789e+08"),
        (0.0001, "0.0001", "0.0001"),
        (0.00001, "1e-05", "1e-05"),
        (1e100, "1e+100", "1e+100"),
        (10**400, "+Inf", "+Inf"),
        (True, "true", "true"),
        (None, "<nil>", "<nil>"),
        ({"b": 1, "a": "x"}, "map[a:x b:1]", "map[a:x b:1]"),
    ],
)
def test_go_formats(value: object, plain: str, literal: str) -> None:
    assert (gotext.sprint(value), gotext.literal(value)) == (plain, literal)
