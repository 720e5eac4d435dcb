"""``lhama-ngram TEXT… -o MODEL``: texts to a model file, the only thing that takes time."""

from __future__ import annotations

import argparse
from array import array
from pathlib import Path

from lhama.plugins import gguf
from lhama_ngram.backend import ARCHITECTURE, SUFFIXES, TEXT
from lhama_ngram.model import ORDER

CHAT_TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"
"""It knows no turns: it goes on where the conversation stops."""


def train(texts: list[bytes], target: Path, name: str) -> int:
    """Write the model of ``texts``; returns its size in bytes of text."""
    corpus = b"".join(text.replace(b"\0", b"") + b"\0" for text in texts)
    suffixes = sorted(range(len(corpus)), key=lambda at: corpus[at : at + ORDER + 1])
    metadata: dict[str, str | int] = {
        "general.architecture": ARCHITECTURE,
        "general.name": name,
        f"{ARCHITECTURE}.context_length": 4096,
        f"{ARCHITECTURE}.embedding_length": 1,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }
    tensors = {
        TEXT: ((len(corpus),), "I8", corpus),
        SUFFIXES: ((len(corpus),), "I32", array("i", suffixes).tobytes()),
    }
    gguf.write(target, metadata, tensors)
    return len(corpus)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a model of texts.")
    parser.add_argument("texts", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="MODEL.gguf")
    given = parser.parse_args()
    size = train([path.read_bytes() for path in given.texts], given.output, given.output.stem)
    print(f"{given.output}: {size:,} bytes of text")
