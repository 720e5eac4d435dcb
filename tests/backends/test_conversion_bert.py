"""all-MiniLM-L6-v2, converted, against its own safetensors and its own tokenizer."""

from __future__ import annotations

import shutil
from pathlib import Path

import bert_oracle
import numpy as np
import pytest
import torch
from lhama_testing_models import minilm_folder

from lhama.backends.conversion import model, safetensors
from lhama.backends.llamacpp.backend import LlamaCppBackend
from lhama.plugins import gguf
from lhama.plugins.backend import Engine, LoadOptions, ModelFiles, UnsupportedModel


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("converted") / "minilm.gguf"
    model.convert(minilm_folder(), target, lambda share, note: None)
    return target


@pytest.fixture(scope="module")
def engine(converted: Path) -> Engine:
    files = ModelFiles("minilm", str(converted))
    options = LoadOptions(context=512, embedding=True, gpu_layers=0)
    return LlamaCppBackend().load(files, options, lambda share, note: None)


def test_the_header_says_what_llama_cpp_needs(converted: Path) -> None:
    header = gguf.read(converted)
    assert header.architecture == "bert"
    expected = {
        "block_count": 6,
        "context_length": 512,
        "embedding_length": 384,
        "feed_forward_length": 1536,
        "attention.head_count": 12,
        "attention.causal": False,
        "pooling_type": 1,
        "normalize_embeddings": True,
    }
    assert {key: header.metadata[header.key(key)] for key in expected} == expected
    assert header.metadata["tokenizer.ggml.model"] == "bert"
    assert header.metadata["tokenizer.ggml.token_type_count"] == 2
    assert header.metadata["general.file_type"] == 1


def test_every_weight_is_there_once(converted: Path) -> None:
    header = gguf.read(converted)
    stored = safetensors.read_folder(minilm_folder())
    used = [name for name in stored if not name.startswith(("pooler", "embeddings.position_ids"))]
    assert len(header.tensors) == len(used)
    embedding = header.tensors["token_embd.weight"]
    values = np.fromfile(converted, np.float16, embedding.elements, offset=embedding.offset)
    source = stored["embeddings.word_embeddings.weight"].values()
    np.testing.assert_array_equal(values.reshape(source.shape), source.astype(np.float16))
    kinds = {name: tensor.type_name for name, tensor in header.tensors.items()}
    assert kinds["position_embd.weight"] == kinds["token_types.weight"] == "F32"
    assert kinds["blk.0.attn_q.weight"] == "F16"
    assert kinds["blk.0.attn_q.bias"] == "F32"


@pytest.mark.parametrize("text", bert_oracle.TEXTS)
def test_tokens_and_vectors_are_the_originals(engine: Engine, text: str) -> None:
    tokens = bert_oracle.tokens(text)
    found = engine.tokenizer.encode(text, add_special=True, parse_special=True)
    assert found[: len(tokens) - 1] == tokens[:-1]  # the last may be where a long text was cut
    vector = torch.frombuffer(bytearray(engine.embed([tokens]).result()[0]), dtype=torch.float32)
    assert torch.cosine_similarity(vector, bert_oracle.vector(text), dim=0) > 0.9999


def test_the_vocabulary_is_read_from_vocab_txt_too(converted: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(minilm_folder(), tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    target = tmp_path / "again.gguf"
    model.convert(folder, target, lambda share, note: None)
    first, second = (gguf.read(path, vocabulary=True) for path in (converted, target))
    for key in ("tokens", "token_type"):
        key = f"tokenizer.ggml.{key}"
        assert second.metadata[key] == first.metadata[key]
    assert second.metadata["tokenizer.ggml.seperator_token_id"] == 102
    assert second.metadata["tokenizer.ggml.padding_token_id"] == 0


def test_pooling_is_the_models_own(tmp_path: Path) -> None:
    folder = shutil.copytree(minilm_folder(), tmp_path / "model")
    pooling = folder / "1_Pooling" / "config.json"
    pooling.write_text('{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}')
    model.convert(folder, tmp_path / "cls.gguf", lambda share, note: None)
    assert gguf.read(tmp_path / "cls.gguf").metadata["bert.pooling_type"] == 2
    pooling.write_text('{"pooling_mode_max_tokens": true}')
    with pytest.raises(UnsupportedModel, match="GGUF cannot express"):
        model.convert(folder, tmp_path / "max.gguf", lambda share, note: None)
    (folder / "modules.json").unlink()
    model.convert(folder, tmp_path / "mean.gguf", lambda share, note: None)
    assert gguf.read(tmp_path / "mean.gguf").metadata["bert.pooling_type"] == 1
