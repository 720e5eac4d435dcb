"""Python's collector of cycles, kept out of the way of tokens."""

from __future__ import annotations

import gc

THRESHOLDS = (50_000, 20, 50)
"""New objects before a collection of the youngest, and how many of those make one of the next."""


def settle() -> None:
    """Call when everything is loaded: what lives now lives to the end and is not looked at again.

    Left alone, a collection of everything comes every few thousand tokens and takes as long as
    ten of them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
