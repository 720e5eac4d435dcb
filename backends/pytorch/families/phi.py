"""Phi 3 and 4: fused matrices, RoPE over a part of each head, and frequencies for long texts.

The 4k models' window of 2,047 tokens is left out, as in llama.cpp: a model must not answer
otherwise because another backend has it.
"""

from __future__ import annotations

from lhama.backends.pytorch.families.family import Family, Traits

PHI3 = Family("phi3", lambda shape: Traits(fused=True))
