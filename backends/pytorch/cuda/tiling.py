"""How matrices are cut into programs: measured choices, by the matrix's shape and type alone."""

from __future__ import annotations

from typing import Final, NamedTuple

import torch

from lhama.backends.pytorch.cuda.matrix import Matrix

REGISTERS: Final = 72
"""Of a lane, for weights that are fetched before the kernel before has ended."""
SHORT: Final = 8
"""Tiles of a row that can all be fetched ahead."""
LIMITS: Final = {4: 168, 8: 128}
"""Registers of a lane that let three programs of 4 warps, two of 8, share a multiprocessor. Where rows
have many tiles the assembler takes a few more, for products that could wait."""
MANY: Final = 4
"""Tiles of such a row."""
WARPS: Final = 132 * 16
"""Warps that keep a large card busy: what a matrix is cut up for."""
MOST_PARTS: Final = 8
"""Parts of a matrix's inner dimension, at most."""


class Rows(NamedTuple):
    """One vector times a matrix: 16 rows a program."""

    rows: int
    """Of a warp."""
    warps: int
    ahead: int
    """Tiles fetched ahead."""
    ahead_up: int = 0
    """Of the second matrix, where two are multiplied at once."""
    registers: int | None = None
    """Of a lane, at most; ``None`` leaves it to the assembler."""


class Tile(NamedTuple):
    """Several vectors times a matrix: a program's rows, and warps that share blocks and rows."""

    rows: int
    block_warps: int
    row_warps: int

    @property
    def warps(self) -> int:
        return self.block_warps * self.row_warps


class Group(NamedTuple):
    """Some of an expert's rows of activations times its matrix in floats."""

    rows: int
    outputs: int
    step_bytes: int
    """Of the inner dimension."""


GROUPS: Final = Group(64, 128, 128)
"""Not measured. One for all, so that a row's sums do not depend on how many there are."""

_TILES: Final = (Tile(64, 2, 4), Tile(32, 4, 2), Tile(16, 4, 1))
_GATED_TILES: Final = (Tile(64, 1, 4), Tile(32, 2, 2), Tile(16, 4, 1))
"""Two matrices at once leave registers for half the warps."""


def one(matrix: Matrix) -> Rows:
    """For one vector."""
    words, tiles = _tile(matrix)
    if matrix.form is None and tiles <= SHORT:
        return Rows(1, 16, tiles)
    rows, warps = (4, 4) if matrix.columns <= 4096 else (2, 8)
    room = max(1, REGISTERS // (rows * words))
    if matrix.form and tiles > SHORT:
        room = min(room, 4)  # more than that only delays the first products of a long row
    return Rows(rows, warps, min(tiles, room), registers=_limit(matrix, warps))


def one_gated(matrix: Matrix) -> Rows:
    """For one vector and two such matrices."""
    words, tiles = _tile(matrix)
    if matrix.columns > 1024:
        # The first matrix alone; of floats more than is kept of codes.
        room = SHORT if matrix.form is None else max(1, REGISTERS // (4 * words))
        return Rows(4, 4, min(tiles, room), registers=_limit(matrix, 4))
    ahead = min(tiles, max(1, REGISTERS // (2 * words)))
    return Rows(2, 8, ahead, min(tiles, REGISTERS // (2 * words) - ahead))


def one_router(matrix: Matrix) -> Rows:
    """For one vector and few rows of floats: one for each warp, all of it ahead if it fits.

    Not measured, like the next.
    """
    words, tiles = _tile(matrix)
    return Rows(1, 16, min(tiles, REGISTERS // words))


def one_gated_experts(matrix: Matrix) -> Rows:
    """For one vector and two such matrices whose rows are known late: both at once."""
    words, tiles = _tile(matrix)
    ahead = min(tiles, max(1, REGISTERS // (8 * words)))
    return Rows(4, 4, ahead, ahead)


def _limit(matrix: Matrix, warps: int) -> int | None:
    _, tiles = _tile(matrix)
    return LIMITS[warps] if matrix.form and tiles >= MANY else None


def _tile(matrix: Matrix) -> tuple[int, int]:
    """Registers a lane needs for a row's tile, and tiles in a row."""
    if matrix.form is None:
        per_tile = 128 if matrix.data.dtype == torch.float32 else 256
        return 4, -(-matrix.columns // per_tile)
    words = {4: 4, 5: 5, 6: 6, 8: 8}[matrix.form.bits]
    return words, -(-matrix.columns // 1024)


def several(matrix: Matrix) -> Tile:
    """For several vectors: the largest tile that leaves enough programs."""
    return next((tile for tile in _TILES if matrix.rows >= 128 * tile.rows), _TILES[-1])


def several_gated(matrix: Matrix) -> Tile:
    """For several vectors and two such matrices."""
    tiles = _GATED_TILES
    return next((tile for tile in tiles if matrix.rows >= 128 * tile.rows), tiles[-1])


def parts_of(matrix: Matrix) -> int:
    """Parts the inner dimension is cut into, whatever the number of vectors: sums stay the same."""
    tile = several(matrix)
    warps = -(-matrix.rows // tile.rows) * tile.warps
    blocks = -(-matrix.columns // 256)
    return max(1, min(blocks // tile.block_warps, MOST_PARTS, -(-WARPS // warps)))
