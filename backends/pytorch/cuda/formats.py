"""How weights lie on the card: GGUF's blocks taken apart into planes, bit for bit.

A block mixes scales and codes in 18 to 210 bytes, which a warp cannot load in wide words. Here each
kind of field has a plane of its own, row after row. The unit of all planes is a **group** of 32
weights: one lane's share.

Codes come in two halves of a group, A (weights 0-15) and B (16-31). Byte ``b`` of word ``c`` of a
half is weight ``4b + c``: what a dot product of bytes takes in one go, and for tensor cores the
four words hold four neighbours at the same place. Planes, in this order:

    codes   4 bits: 4 words a group, A in the low nibbles, B in the high ones
            8 bits: 4 words a group for A, then a plane of the same size for B
    high    fifth bits: a word a group, bit ``8b + c`` for A and ``8b + 4 + c`` for B;
            fifth and sixth: a word a group for A, bits ``8b + 2c``, then a plane for B
    scale   a group's scale and minimum (or two scales), 16 or 32 bits
    super   what eight groups share: ``d``, or ``d`` and ``dmin``

Kernels compute the offsets of planes by the same rules (``kernels/dot.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch

GROUP: Final = 32
SUPER: Final = 8
"""Groups in a super-block."""
ALIGNED: Final = 16
"""Rows are padded to a multiple of this: one program's rows."""


@dataclass(frozen=True, slots=True)
class Fields:
    """One tensor's blocks taken apart: codes uint8 [rows, groups, 32], scales int32 or int16
    [rows, groups], supers int32 or int16 [rows, groups / 8] or ``None``."""

    codes: torch.Tensor
    scales: torch.Tensor
    supers: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class Format:
    """A quantised type: weight = scale · (code - offset), or scale · code - minimum."""

    name: str
    number: int
    """What kernels know it by."""
    bits: int
    scale_bits: int
    super_bits: int
    take_apart: Callable[[torch.Tensor], Fields]
    """Of raw blocks uint8 [rows, bytes]."""

    def plane_words(self, columns: int) -> tuple[int, ...]:
        """32-bit words a row has in each plane. 16-bit planes are rounded up over all rows."""
        groups = columns // GROUP
        codes = (4 * groups, 4 * groups) if self.bits == 8 else (4 * groups,)
        high = {5: (groups,), 6: (groups, groups)}.get(self.bits, ())
        return (*codes, *high)

    def words(self, rows: int, columns: int) -> int:
        """32-bit words of a whole matrix of ``rows`` (a multiple of 16)."""
        groups = columns // GROUP
        bits = self.scale_bits * groups + self.super_bits * groups // SUPER
        return rows * sum(self.plane_words(columns)) + rows * bits // 32


def allocate(form: Format, rows: int, columns: int, device: torch.device) -> torch.Tensor:
    """Planes of zeros, int32 [words]: rows nobody fills give zeros."""
    return torch.zeros(form.words(rows, columns), dtype=torch.int32, device=device)


def place(
    form: Format, raw: torch.Tensor, data: torch.Tensor, rows: int, columns: int, first: int
) -> None:
    """Put raw blocks (uint8 [n, bytes]) into ``data``'s planes from row ``first`` on."""
    fields = form.take_apart(raw)
    count = raw.shape[0]
    planes = [*_code_planes(form.bits, fields.codes), _as_words(fields.scales)]
    if fields.supers is not None:
        planes.append(_as_words(fields.supers))
    at = 0
    for plane, halves in zip(planes, _row_halves(form, columns), strict=True):
        # Rows of a 16-bit plane may begin in the middle of a word.
        whole = data[at // 2 : (at + rows * halves) // 2].view(torch.int16)
        whole[first * halves : (first + count) * halves] = plane.reshape(-1)
        at += rows * halves


def values(form: Format, data: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """float32 [rows, columns] computed from the planes as ggml computes it from its blocks."""
    groups = columns // GROUP
    planes: list[torch.Tensor] = []
    at = 0
    for halves in _row_halves(form, columns):
        planes.append(data[at // 2 : (at + rows * halves) // 2].view(torch.int16))
        at += rows * halves
    count = len(form.plane_words(columns))
    codes = _codes(form.bits, [p.view(torch.int32).view(rows, -1) for p in planes[:count]])
    scale, minimum = scales(form, planes[count:], rows, groups)
    weights = codes.view(rows, groups, 2, GROUP // 2).float()
    return (scale * weights - minimum).view(rows, columns)


def scales(
    form: Format, planes: list[torch.Tensor], rows: int, groups: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """What codes are multiplied with and what is then taken off: float32 [rows, groups, 2, 1]."""
    scale = planes[0]
    if form.scale_bits == 32:
        d, m = scale.view(torch.float16).float().view(rows, groups, 2, 1, 1).unbind(2)
        return d.expand(-1, -1, 2, -1), -m.expand(-1, -1, 2, -1)
    if not form.super_bits:
        d = scale.view(torch.float16).float().view(rows, groups, 1, 1).expand(-1, -1, 2, -1)
        return d, d * OFFSETS.get(form.name, 0)
    if form.name == "Q6_K":
        halves = scale.view(torch.int8).view(rows, groups, 2, 1).float()
        d = planes[1].view(torch.float16).float().view(rows, -1, 1, 1)
        d = d.repeat_interleave(SUPER, 1) * halves
        return d, d * OFFSETS["Q6_K"]
    pair = scale.view(torch.uint8).view(rows, groups, 2, 1).float()
    both = planes[1].view(torch.float16).float().view(rows, -1, 2, 1).repeat_interleave(SUPER, 1)
    product = both * pair
    return product[:, :, :1].expand(-1, -1, 2, -1), product[:, :, 1:].expand(-1, -1, 2, -1)


def _row_halves(form: Format, columns: int) -> list[int]:
    """16-bit units a row has in each plane."""
    groups = columns // GROUP
    halves = [2 * words for words in form.plane_words(columns)]
    halves.append(groups * form.scale_bits // 16)
    if form.super_bits:
        halves.append(groups // SUPER * form.super_bits // 16)
    return halves


def _as_words(numbers: torch.Tensor) -> torch.Tensor:
    return numbers.contiguous().view(torch.int16)


# ---------------------------------------------------------------------------------------- codes


def _code_planes(bits: int, codes: torch.Tensor) -> list[torch.Tensor]:
    """Codes [rows, groups, 32] as planes of int16 [rows, ...]."""
    low, high = _words_of(codes[..., :16]), _words_of(codes[..., 16:])
    if bits == 8:
        return [_packed(low), _packed(high)]
    planes = [_packed((low & 15) | (high << 4))]
    # [rows, groups, c, b]: bits above the fourth, gathered into one word for all c.
    above, above_high = low >> 4, high >> 4
    place = torch.arange(4, dtype=torch.uint8, device=codes.device).unsqueeze(1)
    if bits == 5:
        bits_of = (above << place) | (above_high << (place + 4))
        planes.append(_packed(_any(bits_of)))
    elif bits == 6:
        planes += [_packed(_any(half << (2 * place))) for half in (above, above_high)]
    return planes


def _words_of(half: torch.Tensor) -> torch.Tensor:
    """16 codes as four words [c, b]: byte b of word c is code 4b + c."""
    return half.unflatten(-1, (4, 4)).transpose(-1, -2)


def _any(parts: torch.Tensor) -> torch.Tensor:
    """Bitwise or over c of [rows, groups, c, b]."""
    first, second, third, fourth = parts.unbind(-2)
    return first | second | third | fourth


def _packed(octets: torch.Tensor) -> torch.Tensor:
    return octets.contiguous().flatten(1).view(torch.int16)


def _codes(bits: int, planes: list[torch.Tensor]) -> torch.Tensor:
    """The way back: uint8 [rows, groups · 32] (int8 for 8 bits)."""
    rows = planes[0].shape[0]

    def octets(plane: torch.Tensor) -> torch.Tensor:
        return plane.contiguous().view(torch.uint8).view(rows, -1, 4, 4)  # c, b

    if bits == 8:
        low, high = octets(planes[0]), octets(planes[1])
    else:
        both = octets(planes[0])
        low, high = both & 15, both >> 4
        place = torch.arange(4, dtype=torch.uint8, device=both.device).unsqueeze(1)
        if bits == 5:
            above = planes[1].contiguous().view(torch.uint8).view(rows, -1, 1, 4)
            low = low | ((above >> place & 1) << 4)
            high = high | ((above >> (place + 4) & 1) << 4)
        elif bits == 6:
            above, above_high = (
                plane.contiguous().view(torch.uint8).view(rows, -1, 1, 4) for plane in planes[1:3]
            )
            low = low | ((above >> (2 * place) & 3) << 4)
            high = high | ((above_high >> (2 * place) & 3) << 4)
    codes = torch.stack([half.transpose(-1, -2).flatten(-2) for half in (low, high)], -2)
    return codes.view(torch.int8) if bits == 8 else codes


# --------------------------------------------------------------------------------- GGUF's blocks


def _nibbles(octets: torch.Tensor) -> torch.Tensor:
    """16 bytes a group: low nibbles are codes 0-15, high ones 16-31."""
    return torch.cat((octets & 15, octets >> 4), -1)


def _fifth_bits(octets: torch.Tensor) -> torch.Tensor:
    """4 bytes a group, a bit for each code: moved to bit 4 of [..., 32]."""
    places = torch.arange(8, dtype=torch.uint8, device=octets.device)
    return ((octets.unsqueeze(-1) >> places & 1) << 4).flatten(-2)


def _legacy(raw: torch.Tensor, size: int) -> torch.Tensor:
    return raw.view(raw.shape[0], -1, size)


def _q4_0(raw: torch.Tensor) -> Fields:
    blocks = _legacy(raw, 18)
    return Fields(_nibbles(blocks[..., 2:]), _half(blocks[..., :2]))


def _q4_1(raw: torch.Tensor) -> Fields:
    blocks = _legacy(raw, 20)
    return Fields(_nibbles(blocks[..., 4:]), _word(blocks[..., :4]))


def _q5_0(raw: torch.Tensor) -> Fields:
    blocks = _legacy(raw, 22)
    codes = _nibbles(blocks[..., 6:]) | _fifth_bits(blocks[..., 2:6])
    return Fields(codes, _half(blocks[..., :2]))


def _q5_1(raw: torch.Tensor) -> Fields:
    blocks = _legacy(raw, 24)
    codes = _nibbles(blocks[..., 8:]) | _fifth_bits(blocks[..., 4:8])
    return Fields(codes, _word(blocks[..., :4]))


def _q8_0(raw: torch.Tensor) -> Fields:
    blocks = _legacy(raw, 34)
    return Fields(blocks[..., 2:], _half(blocks[..., :2]))


def _q4_k(raw: torch.Tensor) -> Fields:
    blocks = _legacy(raw, 144)
    return Fields(_pairs(blocks[..., 16:]), _six_bits(blocks[..., 4:16]), _word(blocks[..., :4]))


def _q5_k(raw: torch.Tensor) -> Fields:
    blocks = _legacy(raw, 176)
    high = blocks[..., 16:48].unsqueeze(-2)  # bit g of byte l: code l of group g
    places = torch.arange(8, dtype=torch.uint8, device=raw.device).unsqueeze(-1)
    codes = _pairs(blocks[..., 48:]) | ((high >> places & 1) << 4).flatten(1, 2)
    return Fields(codes, _six_bits(blocks[..., 4:16]), _word(blocks[..., :4]))


def _q6_k(raw: torch.Tensor) -> Fields:
    blocks = _legacy(raw, 210)
    low = blocks[..., :128].unflatten(-1, (2, 1, 64))
    low = torch.cat((low & 15, low >> 4), -2).unflatten(-1, (2, 32))  # [half, nibble, 2, 32]
    places = torch.arange(0, 8, 2, dtype=torch.uint8, device=raw.device).view(2, 2, 1)
    high = blocks[..., 128:192].unflatten(-1, (2, 1, 1, 32)) >> places & 3
    codes = (low | high << 4).flatten(-4).unflatten(-1, (SUPER, GROUP)).flatten(1, 2)
    scales = blocks[..., 192:208].contiguous().view(torch.int16).flatten(1)
    return Fields(codes, scales, _half(blocks[..., 208:]))


def _pairs(octets: torch.Tensor) -> torch.Tensor:
    """Four times 32 bytes: low nibbles are one group, high nibbles the next."""
    quarter = octets.unflatten(-1, (4, 1, GROUP))
    return torch.cat((quarter & 15, quarter >> 4), -2).flatten(1, 3)


def _six_bits(packed: torch.Tensor) -> torch.Tensor:
    """Eight 6-bit scales and minimums in 12 bytes: int16 [rows, groups], scale in the low byte."""
    first, second, third = packed.unflatten(-1, (3, 4)).unbind(-2)
    scale = torch.cat((first & 63, (third & 15) | (first >> 6) << 4), -1)
    minimum = torch.cat((second & 63, (third >> 4) | (second >> 6) << 4), -1)
    return torch.stack((scale, minimum), -1).view(torch.int16).flatten(1)


def _half(octets: torch.Tensor) -> torch.Tensor:
    return octets.contiguous().view(torch.int16).flatten(1)


def _word(octets: torch.Tensor) -> torch.Tensor:
    return octets.contiguous().view(torch.int32).flatten(1)


OFFSETS: Final = {"Q4_0": 8, "Q5_0": 16, "Q6_K": 32}

FORMATS: Final = {
    form.name: form
    for form in (
        Format("Q4_0", 0, 4, 16, 0, _q4_0),
        Format("Q4_1", 1, 4, 32, 0, _q4_1),
        Format("Q5_0", 2, 5, 16, 0, _q5_0),
        Format("Q5_1", 3, 5, 32, 0, _q5_1),
        Format("Q8_0", 4, 8, 16, 0, _q8_0),
        Format("Q4_K", 5, 4, 16, 32, _q4_k),
        Format("Q5_K", 6, 5, 16, 32, _q5_k),
        Format("Q6_K", 7, 6, 16, 16, _q6_k),
    )
}
