"""Llama 1 to 3, and what its files carry, too: Mistral, Mixtral, SmolLM2, TinyLlama …"""

from __future__ import annotations

from lhama.backends.pytorch.families.family import Family, Traits

LLAMA = Family("llama", lambda shape: Traits(neighbours=True), experts=True)
