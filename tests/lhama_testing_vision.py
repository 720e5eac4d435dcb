"""A tiny image encoder with random weights, and pictures to show it."""

from __future__ import annotations

import random
import struct
import zlib
from array import array
from pathlib import Path

from lhama.plugins import gguf

WIDTH, PATCH, SIDE, LAYERS = 64, 14, 28, 2
PATCHES = (SIDE // PATCH) ** 2
"""Positions an image takes in the context."""


def write_projector(path: Path, model_width: int, seed: int = 7) -> None:
    """A LLaVA projector (``clip``, ``mlp``) for a text model of that width; float32."""
    draw = random.Random(seed)

    def tensor(*shape: int, spread: float = 0.1) -> tuple[tuple[int, ...], str, bytes]:
        count = 1
        for size in shape:
            count *= size
        return shape, "F32", array("f", (draw.gauss(0, spread) for _ in range(count))).tobytes()

    tensors = {
        "v.patch_embd.weight": tensor(PATCH, PATCH, 3, WIDTH),
        "v.position_embd.weight": tensor(WIDTH, PATCHES, spread=0.5),
        "mm.0.weight": tensor(WIDTH, model_width),
        "mm.0.bias": tensor(model_width),
        "mm.2.weight": tensor(model_width, model_width, spread=0.05),
        "mm.2.bias": tensor(model_width),
    }
    for layer in range(LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_out", "ffn_up", "ffn_down"):
            tensors[f"v.blk.{layer}.{name}.weight"] = tensor(WIDTH, WIDTH)
            tensors[f"v.blk.{layer}.{name}.bias"] = tensor(WIDTH)
        for name in ("ln1", "ln2"):
            tensors[f"v.blk.{layer}.{name}.weight"] = tensor(WIDTH)
            tensors[f"v.blk.{layer}.{name}.bias"] = tensor(WIDTH)
    metadata: dict[str, str | int | float | bool | list[float]] = {
        "general.architecture": "clip",
        "general.type": "mmproj",
        "clip.has_vision_encoder": True,
        "clip.projector_type": "mlp",
        "clip.use_gelu": True,
        "clip.vision.image_size": SIDE,
        "clip.vision.patch_size": PATCH,
        "clip.vision.embedding_length": WIDTH,
        "clip.vision.feed_forward_length": WIDTH,
        "clip.vision.block_count": LAYERS,
        "clip.vision.attention.head_count": 2,
        "clip.vision.projection_dim": model_width,
        "clip.vision.attention.layer_norm_epsilon": 1e-5,
        "clip.vision.image_mean": [0.5, 0.5, 0.5],
        "clip.vision.image_std": [0.5, 0.5, 0.5],
    }
    gguf.write(path, metadata, tensors)


def png(seed: int, side: int = SIDE) -> bytes:
    """A picture of coloured noise."""
    draw = random.Random(seed)
    rows = b"".join(b"\0" + draw.randbytes(3 * side) for _ in range(side))

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
