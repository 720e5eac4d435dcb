"""Read a request body as Go's ``encoding/json`` reads it into a struct.

Keys match in any case, unknown ones are ignored, ``null`` leaves the zero value, what follows the
first value is ignored, broken UTF-8 becomes U+FFFD. Errors are Go's, to the letter: clients show
them, and some match on them.

There are two ways through. The quick one takes bodies as they nearly always are; whatever it cannot
read, and whatever reads with an error, goes the exact way, which sees numbers as they were written,
keys that come twice, and text that is none.
"""

from __future__ import annotations

import codecs
import json
import typing
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from lhama.daemon import goscan
from lhama.daemon.errors import Malformed
from lhama.daemon.protocol import gobind
from lhama.daemon.protocol.govalue import Abort, Number, Object, Scope

T = TypeVar("T", bound=msgspec.Struct)

_BYTE_BY_BYTE = "lhama.replace-byte"
_TOO_DEEP = "invalid character '[' exceeded max depth"
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_anything = msgspec.json.Decoder()


def decode(body: bytes, into: type[T], *, empty: str = "missing request body") -> T:
    """Read ``body`` into the struct. Raises ``Malformed`` with Go's text.

    ``empty``: the text for a body with nothing in it, which the routes word differently.
    """
    members = _quick(body)
    if members is not None:
        try:
            return bind(members, into)
        except (Malformed, ValueError, OverflowError, RecursionError):
            pass  # the exact way words it better
    try:
        return _bind(_parse(body, empty), into, _exact_member)
    except RecursionError:
        raise Malformed(_TOO_DEEP) from None


def read(text: bytes, into: type[T]) -> T:
    """Read a JSON text, known to be one value, into the struct. Raises ``Malformed``."""
    return _bind(_lenient(text), into, _exact_member)


def bind(value: Any, into: type[T]) -> T:
    """Read a value that is decoded already into the struct. Raises ``Malformed``."""
    return _bind(value, into, _quick_member)


def value(text: str) -> Any:
    """A JSON text's value. Raises ``ValueError`` with Go's words where there is not exactly one."""
    try:
        return _anything.decode(text)
    except msgspec.DecodeError as error:
        raise ValueError(goscan.refusal(text.encode()) or str(error)) from None


def _bind(value: Any, into: type[T], member: Callable[[Any], Any]) -> T:
    scope = Scope(member)
    try:
        read = into() if value is None else gobind.struct(into).bind(value, scope)
    except Abort as stopped:
        raise Malformed(str(stopped.error)) from None
    if scope.saved is not None:
        raise Malformed(str(scope.saved))
    return typing.cast(T, read)


def _quick(body: bytes) -> dict[str, msgspec.Raw] | None:
    """The members of a body that is one object, each key in it once; else ``None``."""
    try:
        members = _object.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    # The decoder forgets a key that comes again: its text does, too. Mostly it is one further in.
    if any(body.count(b'"%s"' % key.encode("utf-8", "surrogatepass")) > 1 for key in members):
        return None
    return members


def _quick_member(member: Any) -> Any:
    return _anything.decode(member) if isinstance(member, msgspec.Raw) else member


def _parse(body: bytes, empty: str) -> Any:
    """The body's first value, an object's members unread."""
    try:
        start, end = goscan.first_value(body)
    except goscan.JsonEmpty:
        raise Malformed(empty) from None
    except goscan.JsonTruncated:
        raise Malformed("unexpected EOF") from None
    except goscan.JsonSyntaxError as error:
        raise Malformed(str(error)) from None
    if body[start : start + 1] != b"{":
        return _lenient(body[start:end])
    members = goscan.members(body, start)
    return Object([(_lenient(key), msgspec.Raw(value)) for key, value in members])


def _exact_member(member: Any) -> Any:
    return _lenient(bytes(member)) if isinstance(member, msgspec.Raw) else member


def _lenient(value: bytes) -> Any:
    """A syntactically right value that may hold broken UTF-8 or lone surrogates."""
    text = value.decode("utf-8", _BYTE_BY_BYTE)
    loaded = json.loads(text, parse_float=Number, parse_int=Number, object_pairs_hook=Object)
    return _whole(loaded) if "\\u" in text else loaded


def _whole(value: Any) -> Any:
    """Lone surrogates come from escapes only, and Go makes each U+FFFD."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, Object):
        return Object([(_whole(key), _whole(item)) for key, item in value.members])
    return value


def _replace_byte(error: UnicodeError) -> tuple[str, int]:
    """As Go: U+FFFD for each byte that is part of no character."""
    assert isinstance(error, UnicodeDecodeError)
    return "\ufffd", error.start + 1


codecs.register_error(_BYTE_BY_BYTE, _replace_byte)
