"""Which of llama.cpp's pre-tokenizers a ``tokenizer.json`` asks for."""

from __future__ import annotations

import hashlib
import logging
from typing import Any, Final

log = logging.getLogger(__name__)

# SHA-256 of a tokenizer's Split patterns, one after the other: they tell the families apart.
_BY_PATTERNS: Final = {
    "d98f9631be1e9607a9848c26c1f9eac1aa9fc21ac6ba82a2fc0741af9780a48f": "llama-bpe",
    "1ff7f41064896984db5d1bb6ff64fa4bc29007d08c1b439e505b7392777a319e": "qwen2",
    "00431aed57e696b747435f734d1e3b9b1bfd931a121fb5cac7129e97c181e9ba": "qwen35",
    "1d64a9a8eaf9f1bd80331984d81fdd514e7feafe8df83a525dd31472f275699a": "tekken",
    "2d1b8dc11e89af71459b36004f698ab3693f59fd84f63e8ec2b49564ab857420": "gpt-4o",
    "03df5c5863ad70781dcfdef491ead25140f895fe8010964be0daefe27be32b02": "deepseek-llm",
    "21cde974d587f0d54dc8d56b183cc1e6239600172035c68fbd6d4b9f8da0576e": "deepseek-coder",
    "b92c0824a58e1d8dc3221cf3e12c433c3a86f57e46d57229993489f0798e7702": "laguna",
}


def detect(tokenizer: dict[str, Any]) -> str:
    """llama.cpp's name for the pre-tokenizer; ``default`` for one it has no name for."""
    steps = list(_steps(tokenizer.get("pre_tokenizer")))
    patterns = [_pattern(step) for step in steps if step.get("type") == "Split"]
    if patterns:
        digest = hashlib.sha256("".join(patterns).encode()).hexdigest()
        if digest not in _BY_PATTERNS:
            log.warning("unknown pre-tokenizer %s: llama.cpp's default is used", digest)
        return _BY_PATTERNS.get(digest, "default")
    kinds = [step.get("type") for step in steps]
    if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits"):
        return "smollm"
    if kinds == ["ByteLevel"]:
        return "gpt-2"
    return "default"


def _steps(node: Any) -> list[dict[str, Any]]:
    """The pre-tokenizers of a tree in the order in which they are applied."""
    if not isinstance(node, dict):
        return []
    inner = node.get("pretokenizers")
    if not isinstance(inner, list):
        return [node]
    return [step for child in inner for step in _steps(child)]


def _pattern(step: dict[str, Any]) -> str:
    pattern = step.get("pattern")
    regex = pattern.get("Regex") if isinstance(pattern, dict) else None
    return regex if isinstance(regex, str) else ""
