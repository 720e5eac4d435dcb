"""BERT: encoders that turn a text into one vector."""

from __future__ import annotations

from pathlib import Path

from gguf import GGUFWriter
from gguf.constants import MODEL_ARCH, PoolingType

from lhama.backends.conversion import jsonfile, vocabulary
from lhama.backends.conversion.config import Config
from lhama.backends.conversion.families.family import Family
from lhama.backends.conversion.vocabulary import Vocabulary
from lhama.plugins.backend import UnsupportedModel

_HEADS = ("pooler.", "cls.predictions.", "cls.seq_relationship.")
"""What was trained with the encoder and is not part of it."""


class Bert(Family):
    arch = MODEL_ARCH.BERT

    def describe(self, writer: GGUFWriter, folder: Path) -> None:
        super().describe(writer, folder)
        config = self.config
        if config.text("position_embedding_type", default="absolute") != "absolute":
            raise UnsupportedModel("a BERT with relative positions is not supported")
        writer.add_layer_norm_eps(config.number("layer_norm_eps", "layer_norm_epsilon"))
        writer.add_causal_attention(False)
        pooling, normalizes = _sentence_transformer(folder)
        writer.add_pooling_type(pooling)
        writer.add_bool(f"{writer.arch}.normalize_embeddings", normalizes)
        # The last, as Ollama's listing reads a header as far as its first tokenizer key.
        writer.add_token_type_count(config.count("type_vocab_size", default=1))

    def vocabulary(self, folder: Path) -> Vocabulary:
        return vocabulary.read_wordpiece(folder)

    def own_name(self, name: str) -> str | None:
        name = name.removeprefix("bert.")
        if name.startswith(_HEADS) or name == "embeddings.position_ids":
            return None
        # Checkpoints of TensorFlow's time.
        for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
            if name.endswith(old):
                name = name.removesuffix(old) + new
        return name


def _sentence_transformer(folder: Path) -> tuple[PoolingType, bool]:
    """How outputs become one vector, and whether that is normalized.

    By ``modules.json``; without one, by the mean, as sentence-transformers does.
    """
    path = folder / "modules.json"
    if not path.is_file():
        return PoolingType.MEAN, False
    pooling, normalizes = PoolingType.MEAN, False
    for module in jsonfile.read_list(path):
        kind = str(module.get("type")).rpartition(".")[2]
        if kind == "Normalize":
            normalizes = True
        elif kind == "Pooling":
            # The path is a stranger's: taken only if it is a folder's plain name.
            name = Path(str(module.get("path"))).name
            pooling = _pooling(Config(jsonfile.read(folder / name / "config.json"), name))
    return pooling, normalizes


def _pooling(config: Config) -> PoolingType:
    modes = {
        "pooling_mode_mean_tokens": PoolingType.MEAN,
        "pooling_mode_cls_token": PoolingType.CLS,
        "pooling_mode_lasttoken": PoolingType.LAST,
    }
    chosen = [pooling for key, pooling in modes.items() if config.flag(key, default=False)]
    if len(chosen) != 1:
        raise UnsupportedModel("the model pools in a way that GGUF cannot express")
    return chosen[0]
