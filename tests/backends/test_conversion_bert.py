"""all-MiniLM-L6-v2, converted, against its own files; its vectors are in ``test_embedders``."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from lhama_testing_models import minilm_folder

from lhama.backends.conversion import model, safetensors
from lhama.plugins import gguf
from lhama.plugins.backend import UnsupportedModel


def test_the_header_says_what_llama_cpp_needs(minilm: Path) -> None:
    header = gguf.read(minilm)
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


def test_every_weight_is_there_once(minilm: Path) -> None:
    header = gguf.read(minilm)
    stored = safetensors.read_folder(minilm_folder())
    used = [name for name in stored if not name.startswith(("pooler", "embeddings.position_ids"))]
    assert len(header.tensors) == len(used)
    embedding = header.tensors["token_embd.weight"]
    values = np.fromfile(minilm, np.float16, embedding.elements, offset=embedding.offset)
    source = stored["embeddings.word_embeddings.weight"].values()
    np.testing.assert_array_equal(values.reshape(source.shape), source.astype(np.float16))
    kinds = {name: tensor.type_name for name, tensor in header.tensors.items()}
    assert kinds["position_embd.weight"] == kinds["token_types.weight"] == "F32"
    assert kinds["blk.0.attn_q.weight"] == "F16"
    assert kinds["blk.0.attn_q.bias"] == "F32"


def test_the_vocabulary_is_read_from_vocab_txt_too(minilm: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(minilm_folder(), tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    target = tmp_path / "again.gguf"
    model.convert(folder, target, lambda share, note: None)
    first, second = (gguf.read(path, vocabulary=True) for path in (minilm, target))
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
