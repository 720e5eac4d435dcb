"""Models made by an enemy: headers, manifests, templates."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
from pathlib import Path

import lhama_testing_invariants as invariants
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lhama_testing_daemon import running
from lhama_testing_models import changed_copy
from lhama_testing_security import CORPUS, each

from lhama.backends.reference import model
from lhama.daemon.errors import LhamaError
from lhama.daemon.store import manifests

QUICK = settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)

READER = """
import resource, sys
from pathlib import Path
from lhama.plugins import gguf
resource.setrlimit(resource.RLIMIT_AS, (256 << 20, 256 << 20))
for path in sorted(Path(sys.argv[1]).iterdir()):
    for vocabulary in (False, True):
        try:
            gguf.read(path, vocabulary=vocabulary)
        except gguf.GGUFError as error:
            print(path.name, error)
        else:
            print(path.name, "read")
"""


@pytest.mark.cve("2024-39720", "2024-8063", "2024-12055", "2025-0312", "2025-0315", "2025-0317")
def test_the_corpus_of_headers_in_256_megabytes() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", READER, str(CORPUS / "gguf")], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert len(lines) == 2 * len(list((CORPUS / "gguf").iterdir()))
    assert not [line for line in lines if line.endswith(" read") and "good" not in line]


@pytest.mark.cve("2026-7482")
@each("gguf")
def test_no_header_of_the_corpus_becomes_a_model(path: Path) -> None:
    invariants.header(path.read_bytes())


@pytest.mark.cve("2025-1975")
@each("manifests")
def test_the_corpus_of_manifests(path: Path) -> None:
    with pytest.raises(LhamaError, match="corrupt manifest"):
        manifests.decode(path.read_bytes())


_FIELDS = st.sampled_from(
    ["schemaVersion", "mediaType", "config", "layers", "digest", "size", "from", "name"]
)
_LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=80)
_LAYERS = st.dictionaries(_FIELDS, _LEAVES, max_size=5)
_TREES = _LEAVES | _LAYERS | st.lists(_LEAVES | _LAYERS, max_size=4)


@pytest.mark.cve("2025-1975")
@QUICK
@given(st.dictionaries(_FIELDS, _TREES, max_size=6))
def test_manifests_of_any_shape(value: dict[str, object]) -> None:
    invariants.manifest(json.dumps(value).encode())


@pytest.mark.cve("2025-1975")
def test_a_million_layers_are_refused() -> None:
    layer = '{"digest":"sha256:' + "0" * 64 + '"}'
    data = ('{"layers":[' + ",".join([layer] * 40_000) + "]}").encode()
    with pytest.raises(LhamaError, match="corrupt manifest"):
        manifests.decode(data)


@QUICK
@given(st.text('{}.|$ -=:()rangeifendwithblocktemplatedefineMessages"`\\\n', max_size=120))
def test_templates_of_any_shape(text: str) -> None:
    invariants.template(text)


@pytest.mark.cve("2024-34359", "2024-56326")
@each("templates")
def test_the_corpus_of_templates(tmp_path: Path, smollm2: Path, path: Path) -> None:
    """Each as a model's own template, rendered for a chat: an answer or an error, no escape, and the
    daemon is there afterwards."""
    template = path.read_text()
    canary = tmp_path / "canary"
    with running(tmp_path / "models", CANARY=str(canary), LHAMA_CANARY_SECRET="s3cr3t") as daemon:
        body = {"model": "evil", "messages": [{"role": "user", "content": "x"}], "stream": False}
        try:
            if path.suffix == ".jinja":
                changed_copy(
                    smollm2,
                    tmp_path / "evil.gguf",
                    {"tokenizer.chat_template": template.replace("CANARY", str(canary))},
                )
                daemon.create("evil", tmp_path / "evil.gguf", template="")
            else:
                model.write(tmp_path / "ref.gguf")
                daemon.create("evil", tmp_path / "ref.gguf", template=template)
            said = json.dumps(daemon.call("/api/chat", body | {"options": {"num_predict": 2}}))
        except urllib.error.HTTPError as refused:
            with refused:
                said = refused.read().decode()
        assert "s3cr3t" not in said
        assert not canary.exists()
        assert daemon.call("/health/ready") == {"status": "ready"}


@pytest.mark.cve("llama.cpp loader")
def test_a_file_that_breaks_the_engine_ends_its_runner_only(tmp_path: Path, smollm2: Path) -> None:
    """Headers that are well-formed and a lie to llama.cpp, one after the other."""
    lies = [
        {"llama.attention.head_count": 0},
        {"llama.attention.head_count": 7},
        {"llama.block_count": 1 << 30},
        {"llama.embedding_length": 1 << 31},
        {"llama.rope.dimension_count": 3},
        {"llama.feed_forward_length": 1},
        {"tokenizer.ggml.eos_token_id": 1 << 31},
        {"llama.vocab_size": 1 << 30},
    ]
    with running(tmp_path / "models", LHAMA_BACKEND="llamacpp") as daemon:
        daemon.create("good", smollm2)
        pid = daemon.process.pid
        for number, lie in enumerate(lies):
            path = tmp_path / "lie.gguf"
            changed_copy(smollm2, path, lie)
            body = {"model": f"lie{number}", "prompt": "x", "stream": False}
            said: dict[str, object]
            try:
                daemon.create(f"lie{number}", path)
                said = daemon.call("/api/generate", body | {"options": {"num_predict": 2}})
            except urllib.error.HTTPError as refused:
                with refused:
                    said = json.loads(refused.read())
            assert said.get("error") or said.get("done"), lie
            path.unlink()
        answer = daemon.call(
            "/api/generate",
            {"model": "good", "prompt": "x", "stream": False, "options": {"num_predict": 2}},
        )
        assert answer["done"]
        assert daemon.process.pid == pid
        os.kill(pid, 0)
