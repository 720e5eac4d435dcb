"""all-MiniLM-L6-v2 computed once more: Hugging Face's tokenizer, the original numbers, plain torch.

sentence-transformers itself would bring transformers and scikit-learn into every test run. It was
asked once: its vectors of these texts and this module's differ by 2e-7 at most.
"""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from lhama_testing_models import minilm_folder
from tokenizers import Tokenizer

EPS = 1e-12
HEADS = 12
LAYERS = 6

TEXTS = (
    "Why is the sky blue?",
    "The sky is blue because molecules scatter short waves of light more than long ones.",
    "a",
    "Hello, world!",
    "A llama is a domesticated South American camelid, widely used as a meat and pack animal.",
    "The quick brown fox jumps over the lazy dog. " * 12,
    "word " * 250,
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "3.14159 is about 22/7, and 1,000,000 is 10^6.",
    "def double(x):\n    return x * 2  # twice\n",
    "SELECT name, age FROM people WHERE age > 30 ORDER BY name;",
    "https://example.com/path?query=value&other=1#fragment",
    "I'm sure they've said it's \u201cfine\u201d \u2014 isn't it?",
    "😀 Emojis 🎉 and symbols ∑ ≈ € are tokens or unknown 🦙",
    "Der Himmel ist blau, weil das Licht gestreut wird.",
    "Größe, Straße, Äpfel und Übermut: fünf Wörter mit Umlauten.",
    "Le garçon a mangé les crêpes à l'été, où était-il déjà ?",
    "El niño comió una piña mañana por la tarde; ¿quién sabe?",
    "O avião não está lá: a lhama é a mãe do coração.",
    "Zażółć gęślą jaźń, a potem idź spać.",
    "Příliš žluťoučký kůň úpěl ďábelské ódy.",
    "İstanbul'da ışık sönünce çocuklar uyur.",
    "Xin chào thế giới, tôi là một con lạc đà không bướu.",
    "Привет, как дела? Небо голубое из-за рассеяния света.",
    "Η γρήγορη καφέ αλεπού πηδάει πάνω από το τεμπέλικο σκυλί.",
    "我喜欢机器学习和自然语言处理。",
    "東京は日本の首都であり、世界で最も人口の多い都市の一つです。",
    "مرحبا بالعالم، السماء زرقاء",
    "שלום עולם, השמיים כחולים",
    "Nebo je plavo. Небо је плаво.",
    "tabs\tand\nnew lines\r\nand\u00a0other\u2003spaces",
    "cafe\u0301 with a combining accent, and soft\u00adhyphens\u200b",
    "[CLS] and [SEP] inside of a text are tokens",
    "   spaces   around   ",
)
"""Languages whose letters llama.cpp's tokenizer reads as Hugging Face's does."""


def tokens(text: str) -> list[int]:
    """At most the 256 tokens that sentence-transformers cuts this model's texts to."""
    ids: list[int] = _tokenizer().encode(text).ids
    return ids if len(ids) <= 256 else [*ids[:255], ids[-1]]


def pair(first: str, second: str) -> list[int]:
    """Tokens of two texts that belong together."""
    ids: list[int] = _tokenizer().encode(first, second).ids
    return ids


@cache
def vector(text: str) -> torch.Tensor:
    """float32 [384], as the model makes it: not normalised."""
    numbers = _numbers()

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, numbers[f"{name}.weight"], numbers[f"{name}.bias"])

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        weight, bias = numbers[f"{name}.weight"], numbers[f"{name}.bias"]
        return F.layer_norm(x, weight.shape, weight, bias, EPS)

    ids = torch.tensor(tokens(text))
    x = numbers["embeddings.word_embeddings.weight"][ids]
    x = x + numbers["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x + numbers["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for layer in (f"encoder.layer.{n}" for n in range(LAYERS)):
        q, k, v = (
            linear(x, f"{layer}.attention.self.{part}").unflatten(-1, (HEADS, -1)).transpose(0, 1)
            for part in ("query", "key", "value")
        )
        scores = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1)
        mixed = linear((scores @ v).transpose(0, 1).flatten(1), f"{layer}.attention.output.dense")
        x = norm(x + mixed, f"{layer}.attention.output.LayerNorm")
        inner = F.gelu(linear(x, f"{layer}.intermediate.dense"))
        x = norm(x + linear(inner, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    return x.mean(0)


@cache
def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(minilm_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


@cache
def _numbers() -> dict[str, torch.Tensor]:
    data = (minilm_folder() / "model.safetensors").read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    numbers = {}
    for name, tensor in json.loads(data[8:begin]).items():
        if name == "__metadata__" or tensor["dtype"] != "F32":
            continue
        first, last = tensor["data_offsets"]
        values = np.frombuffer(data, np.float32, (last - first) // 4, begin + first).copy()
        numbers[name] = torch.from_numpy(values).reshape(tensor["shape"])
    return numbers
