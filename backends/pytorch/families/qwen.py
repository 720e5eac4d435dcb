"""Qwen 2 (biases, which any family may have), 3 (norms of queries and keys), and 3 of experts."""

from __future__ import annotations

from lhama.backends.pytorch.families.family import Family, Traits

QWEN2 = Family("qwen2", lambda shape: Traits())
QWEN3 = Family("qwen3", lambda shape: Traits(head_norms=True))
QWEN3MOE = Family("qwen3moe", lambda shape: Traits(head_norms=True), experts=True)
