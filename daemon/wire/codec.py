"""Frames on the daemon–runner socket: a 4-byte little-endian length, then msgpack."""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from lhama.daemon.wire.messages import FromRunner, ToRunner

MAX_FRAME = 1 << 30
"""Bytes. No honest frame comes near it: a corrupt length must not become an allocation."""

_LENGTH = 4
_encoder = msgspec.msgpack.Encoder()

M = TypeVar("M")


class Unsendable(ValueError):
    """A message holds what the wire cannot carry."""


class FrameError(Exception):
    """The other side sent bytes that are no frame; the connection cannot be used any more."""


def encode(message: msgspec.Struct) -> bytes:
    """One message as one frame. Raises ``Unsendable``: a lone surrogate, too large a number."""
    buffer = bytearray(_LENGTH)
    try:
        _encoder.encode_into(message, buffer, _LENGTH)
    except (ValueError, TypeError, OverflowError, RecursionError) as e:
        raise Unsendable(str(e)) from e
    buffer[:_LENGTH] = (len(buffer) - _LENGTH).to_bytes(_LENGTH, "little")
    return bytes(buffer)


class FrameDecoder(Generic[M]):
    """Turns a stream of bytes into messages, however the stream was cut."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[M]) -> None:
        self._decoder = decoder
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[M]:
        """Return every message completed by ``data``. Raises ``FrameError``."""
        self._buffer += data
        messages: list[M] = []
        start, end = 0, len(self._buffer)
        while end - start >= _LENGTH:
            size = int.from_bytes(self._buffer[start : start + _LENGTH], "little")
            if size > MAX_FRAME:
                raise FrameError(f"a frame of {size} bytes was announced")
            if end - start - _LENGTH < size:
                break
            body = bytes(self._buffer[start + _LENGTH : start + _LENGTH + size])
            start += _LENGTH + size
            try:
                messages.append(self._decoder.decode(body))
            except msgspec.MsgspecError as e:
                raise FrameError(f"a frame could not be read: {e}") from e
        del self._buffer[:start]
        return messages


def daemon_side() -> FrameDecoder[FromRunner]:
    """Decoder for what a runner sends."""
    decoder: msgspec.msgpack.Decoder[FromRunner] = msgspec.msgpack.Decoder(FromRunner)
    return FrameDecoder(decoder)


def runner_side() -> FrameDecoder[ToRunner]:
    """Decoder for what the daemon sends."""
    decoder: msgspec.msgpack.Decoder[ToRunner] = msgspec.msgpack.Decoder(ToRunner)
    return FrameDecoder(decoder)
