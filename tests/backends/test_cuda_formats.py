"""GGUF's blocks taken apart into planes and put together again: not a bit is lost."""

from __future__ import annotations

import numpy as np
import pytest
from gguf.constants import GGMLQuantizationType
from quantised_models import blocks

import gguf.quants  # isort: skip
import torch  # isort: skip

from lhama.backends.pytorch.cuda import formats, support
from lhama.backends.pytorch.cuda.matrix import PLAIN
from lhama.plugins.gguf import TENSOR_TYPE_IDS, TENSOR_TYPES

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", formats.FORMATS)
@pytest.mark.parametrize(("rows", "columns"), [(48, 512), (21, 768)])
def test_planes_hold_what_the_blocks_held(name: str, rows: int, columns: int) -> None:
    """Weights computed from planes are ggml's, bit for bit; so all fields are there."""
    form = formats.FORMATS[name]
    raw = blocks(np.random.default_rng(rows), name, rows, columns, 0.05)
    padded = -(-rows // 16) * 16 + 16
    data = formats.allocate(form, padded, columns, CPU)
    # In pieces and not from the first row on, as tensors below one another are.
    for first, piece in ((2, raw[:5]), (7, raw[5:])):
        formats.place(form, torch.from_numpy(piece), data, padded, columns, first)
    found = formats.values(form, data, padded, columns).numpy()
    wanted = gguf.quants.dequantize(raw, GGMLQuantizationType[name])
    np.testing.assert_array_equal(found[2 : 2 + rows], wanted)
    assert not found[:2].any()
    assert not found[2 + rows :].any()


def test_rows_of_one_group_are_enough_for_types_without_super_blocks() -> None:
    for form in formats.FORMATS.values():
        if not form.super_bits:
            raw = blocks(np.random.default_rng(0), form.name, 3, 32, 0.05)
            data = formats.allocate(form, 16, 32, CPU)
            formats.place(form, torch.from_numpy(raw), data, 16, 32, 0)
            found = formats.values(form, data, 16, 32)[:3].numpy()
            wanted = gguf.quants.dequantize(raw, GGMLQuantizationType[form.name])
            np.testing.assert_array_equal(found, wanted)


def test_the_daemon_knows_the_types_and_their_sizes() -> None:
    """``support`` runs without torch and repeats what ``formats`` and ``matrix`` have."""
    assert set(support.BITS) == {*formats.FORMATS, *PLAIN}
    for name, form in formats.FORMATS.items():
        assert support.BITS[name] == form.words(16, 512) * 32 / (16 * 512)
        # Never more than 3 % beyond the file's own size.
        kind = TENSOR_TYPES[TENSOR_TYPE_IDS[name]]
        assert support.BITS[name] <= 1.03 * 8 * kind.size / kind.block
