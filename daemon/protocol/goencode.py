"""JSON as Go's ``encoding/json`` writes it.

Compact, struct fields in their order, ``<``, ``>``, ``&``, U+2028 and U+2029 escaped everywhere,
floats in Go's format. msgspec does the work; what differs is replaced in its output, which is safe
because none of the five characters is part of JSON's own syntax.
"""

from __future__ import annotations

import re
import struct
from array import array
from collections.abc import Sequence
from typing import Any

import msgspec

_encoder = msgspec.json.Encoder()
_floats = msgspec.json.Decoder(list[float]).decode
_EXPONENT = re.compile(rb"[-\d.]+e[-+]?\d+")
_WHOLE = re.compile(rb"\.0(?=[,\]])")
_ESCAPED = (
    (b"<", b"\\u003c"),
    (b">", b"\\u003e"),
    (b"&", b"\\u0026"),
    (b"\xe2\x80\xa8", b"\\u2028"),
    (b"\xe2\x80\xa9", b"\\u2029"),
)
_ESCAPABLE = re.compile(rb"[<>&\xe2]").search


def encode(value: Any) -> bytes:
    """Encode a struct or builtins. Floats must be wrapped by ``go_float`` where they may occur."""
    return escape(_encoder.encode(value))


def text(value: str) -> bytes:
    """Encode a string."""
    return escape(_encoder.encode(value))


def escape(encoded: bytes) -> bytes:
    """Escape what Go escapes for HTML."""
    if _ESCAPABLE(encoded) is None:  # as in nearly every token
        return encoded
    for char, escaped in _ESCAPED:
        if char in encoded:
            encoded = encoded.replace(char, escaped)
    return encoded


def encode_any(value: Any, *, sort_keys: bool = True) -> bytes:
    """Encode builtins as Go encodes a map: keys sorted at every depth, floats in Go's form."""
    return escape(_encode_any(value, sort_keys))


def _encode_any(value: Any, sort_keys: bool) -> bytes:
    if isinstance(value, dict):
        keys = sorted(value, key=lambda k: str(k).encode()) if sort_keys else value
        members = (_encoder.encode(k) + b":" + _encode_any(value[k], sort_keys) for k in keys)
        return b"{" + b",".join(members) + b"}"
    if isinstance(value, list | tuple):
        return b"[" + b",".join(_encode_any(item, sort_keys) for item in value) + b"]"
    if isinstance(value, float):
        return go_float(value)
    return _encoder.encode(value)


def go_float(value: float) -> bytes:
    """A float64 as Go writes it: shortest, an exponent below 1e-6 and from 1e21 on."""
    return _go_digits(repr(value), value).encode()


def raw_float(value: float) -> msgspec.Raw:
    return msgspec.Raw(go_float(value))


def float32(value: float) -> float:
    """The nearest float32, as a float64."""
    (rounded,) = struct.unpack("f", struct.pack("f", value))
    return float(rounded)


def float32_list(values: Sequence[float]) -> msgspec.Raw:
    """A list of float32, each with the fewest digits that give the same float32 again."""
    return float64_list(_shortest(array("f", values)))


def _shortest(exact: array[float]) -> list[float]:
    """For each float32 the float64 that is written with the fewest digits. All are written and
    read at once; nearly all need seven or eight digits."""
    seven, eight = _rounded(exact, 7), _rounded(exact, 8)
    back7, back8 = array("f", seven), array("f", eight)
    found = [
        a if x == z else b if y == z else float(f"{z:.9g}")
        for a, x, b, y, z in zip(seven, back7, eight, back8, exact, strict=True)
    ]
    short = [i for i, (x, z) in enumerate(zip(back7, exact, strict=True)) if x == z]
    six = _rounded([exact[i] for i in short], 6)
    for i, value, back in zip(short, six, array("f", six), strict=True):
        if back == exact[i]:
            found[i] = value or exact[i]  # JSON's numbers lose the sign of a zero
    return found


def _rounded(values: Sequence[float], digits: int) -> list[float]:
    """Each with so many digits."""
    texts = (f"%.{digits}g," * len(values)) % tuple(values)
    return _floats("[" + texts[:-1] + "]")


def float64_list(values: Sequence[float]) -> msgspec.Raw:
    """A list of float64 as Go writes it. msgspec's form differs for very small and large numbers
    and for whole ones."""
    text = _encoder.encode(list(values))
    if b"e" in text:
        text = _EXPONENT.sub(lambda found: go_float(float(found[0])), text)
    if b".0," in text or text.endswith(b".0]"):
        text = _WHOLE.sub(b"", text)
    return msgspec.Raw(text)


def _go_digits(text: str, value: float) -> str:
    """Python's digits of a float put into Go's form."""
    if "e" not in text and ("." not in text or not text.endswith("0")):
        return text if 1e-6 <= abs(value) < 1e21 or not value else _scientific(text)
    if text.endswith(".0"):
        text = text[:-2]
    size = abs(value)
    if size and (size < 1e-6 or size >= 1e21):
        return _scientific(text)
    return _positional(text) if "e" in text else text


def _parts(text: str) -> tuple[str, str, int]:
    """Sign, digits, and the decimal exponent of the first digit."""
    sign = "-" if text.startswith("-") else ""
    mantissa, _, exponent = text.lstrip("-").partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = whole + fraction
    stripped = digits.lstrip("0")
    first = len(whole) - 1 - (len(digits) - len(stripped)) + int(exponent or 0)
    return sign, stripped.rstrip("0"), first


def _scientific(text: str) -> str:
    sign, digits, first = _parts(text)
    mantissa = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
    return f"{sign}{mantissa}e{'-' if first < 0 else '+'}{abs(first):d}"


def _positional(text: str) -> str:
    sign, digits, first = _parts(text)
    if first < 0:
        return f"{sign}0.{'0' * (-first - 1)}{digits}"
    if len(digits) <= first + 1:
        return sign + digits.ljust(first + 1, "0")
    return f"{sign}{digits[: first + 1]}.{digits[first + 1 :]}"
