"""Read a request body as Go's ``encoding/json`` reads it into a struct.

Keys match in any case, unknown ones are ignored, ``null`` leaves the zero value, what follows the
first value is ignored, broken UTF-8 becomes U+FFFD. Errors are Go's, to the letter: clients show
them, and some match on them. The first type error is reported only after the whole value was read,
because an error from a type with its own decoder (``keep_alive``, ``think`` …) wins over it.
"""

from __future__ import annotations

import base64
import binascii
import json
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, TypeVar

import msgspec

from lhama.daemon.errors import BadRequest
from lhama.daemon.protocol import goscan
from lhama.daemon.protocol.goencode import go_float

T = TypeVar("T", bound=msgspec.Struct)

_TOO_DEEP = "invalid character '[' exceeded max depth"
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_anything = msgspec.json.Decoder()


@dataclass(frozen=True)
class Custom:
    """Annotation: a Go type with its own ``UnmarshalJSON``; ``read`` raises ``ValueError``."""

    go: str
    read: Callable[[Any], Any]


@dataclass(frozen=True)
class GoName:
    """Annotation: the Go name of a type, where it does not follow from the Python one."""

    go: str


class _Mismatch(Exception):
    """Go's ``UnmarshalTypeError``."""

    def __init__(self, found: str, go: str, struct: str, path: str) -> None:
        super().__init__(found)
        self.found, self.go, self.struct, self.path = found, go, struct, path

    def __str__(self) -> str:
        place = f"struct field {self.struct}.{self.path}" if self.struct else "value"
        return f"json: cannot unmarshal {self.found} into Go {place} of type {self.go}"


class _Abort(Exception):
    """A custom decoder's error: decoding stops at once."""


@dataclass(slots=True)
class _Scope:
    """Where in the value we are; ``saved`` is the first error that did not stop the decoding."""

    struct: str = ""
    path: str = ""
    saved: Exception | None = None

    def mismatch(self, value: Any, go: str) -> None:
        self.save(_Mismatch(_kind(value, go), go, self.struct, self.path))

    def save(self, error: Exception) -> None:
        if self.saved is None:
            self.saved = error


_Bind = Callable[[Any, _Scope], Any]


@dataclass(frozen=True)
class _Type:
    """How a Go type is read: its name, its zero value, its reader."""

    go: str
    zero: Callable[[], Any]
    bind: _Bind
    raw: bool = False


def decode(body: bytes, into: type[T]) -> T:
    """Read ``body`` into the struct. Raises ``BadRequest`` with Go's text."""
    scope = _Scope()
    try:
        parsed = _parse(body)
        value = into() if parsed is None else _struct(into).bind(parsed, scope)
    except RecursionError:
        raise BadRequest(_TOO_DEEP) from None
    except _Abort as error:
        raise BadRequest(str(error)) from None
    if scope.saved is not None:
        raise BadRequest(str(scope.saved))
    return typing.cast(T, value)


def _parse(body: bytes) -> Any:
    """The body's first value. A valid object comes as raw members, anything else as values."""
    try:
        return _object.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    try:
        start, end = goscan.first_value(body)
    except goscan.JsonEmpty:
        raise BadRequest("missing request body") from None
    except goscan.JsonTruncated:
        raise BadRequest("unexpected EOF") from None
    except goscan.JsonSyntaxError as error:
        raise BadRequest(str(error)) from None
    return _lenient(body[start:end])


def _lenient(value: bytes) -> Any:
    """A syntactically right value that may hold broken UTF-8 or lone surrogates."""
    text = value.decode("utf-8", "replace")
    loaded = json.loads(text, parse_float=_number, parse_int=_number)
    if "\\u" not in text:
        return loaded
    # Lone surrogates come from escapes only; Go makes each U+FFFD.
    whole = json.dumps(loaded, ensure_ascii=False).encode("utf-16", "surrogatepass")
    return json.loads(whole.decode("utf-16", "replace"))


def _number(text: str) -> float:
    if "." not in text and "e" not in text and "E" not in text and len(text) <= 20:
        return int(text)
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise _Abort(f"json: cannot unmarshal number {text} into Go value of type float64")
    return value


def _member(value: Any) -> Any:
    """A raw member's value."""
    if not isinstance(value, msgspec.Raw):
        return value
    try:
        return _anything.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _lenient(bytes(value))


def _kind(value: Any, go: str) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        # Go names the number only where it expected one of another kind.
        if go in ("int", "int32", "int64", "float64", "float32"):
            return f"number {value if isinstance(value, int) else go_float(value).decode()}"
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


# ------------------------------------------------------------------- readers, one for each type


def _bind_str(value: Any, scope: _Scope) -> str:
    if isinstance(value, str):
        return value
    scope.mismatch(value, "string")
    return ""


def _bind_bool(value: Any, scope: _Scope) -> bool:
    if isinstance(value, bool):
        return value
    scope.mismatch(value, "bool")
    return False


def _bind_int(value: Any, scope: _Scope) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63:
        return value
    scope.mismatch(value, "int")
    return 0


def _bind_any(value: Any, scope: _Scope) -> Any:
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return float(value)
    if isinstance(value, list):
        return [_bind_any(item, scope) for item in value]
    if isinstance(value, dict):
        return {key: _bind_any(item, scope) for key, item in value.items()}
    return value


def _bind_raw(value: Any, scope: _Scope) -> msgspec.Raw:
    return value if isinstance(value, msgspec.Raw) else msgspec.Raw(msgspec.json.encode(value))


def _bytes(go: str) -> _Bind:
    def bind(value: Any, scope: _Scope) -> bytes:
        if not isinstance(value, str):
            scope.mismatch(value, go)
            return b""
        text = value.encode()
        try:
            return binascii.a2b_base64(text.translate(None, b"\r\n"), strict_mode=True)
        except ValueError:
            scope.save(ValueError(f"illegal base64 data at input byte {_corrupt(text)}"))
            return b""

    return bind


def _list(go: str, item: _Type) -> _Bind:
    def bind(value: Any, scope: _Scope) -> list[Any]:
        if isinstance(value, list):
            return [item.zero() if v is None else item.bind(v, scope) for v in value]
        scope.mismatch(value, go)
        return []

    return bind


def _map(go: str, item: _Type) -> _Bind:
    def bind(value: Any, scope: _Scope) -> dict[str, Any]:
        if isinstance(value, dict):
            return {k: item.zero() if v is None else item.bind(v, scope) for k, v in value.items()}
        scope.mismatch(value, go)
        return {}

    return bind


def _custom(custom: Custom) -> _Bind:
    def bind(value: Any, scope: _Scope) -> Any:
        try:
            return custom.read(value)
        except ValueError as error:
            raise _Abort(str(error)) from None

    return bind


@cache
def _struct(cls: type[msgspec.Struct]) -> _Type:
    """The reader of a struct. Class attribute ``go_alias``: the type decodes itself through an
    alias of that name, so errors inside name the struct around it and stop the decoding."""
    name = getattr(cls, "go_name", cls.__name__)
    alias: str = getattr(cls, "go_alias", "")
    go = f"api.{alias or name}"

    def read(value: Any, scope: _Scope) -> msgspec.Struct:
        if not isinstance(value, dict):
            scope.mismatch(value, go)
            return cls()
        struct, path = scope.struct, scope.path
        scope.struct = name
        found: dict[str, Any] = {}
        fields = _fields(cls)
        for key, member in value.items():
            field = fields.get(key.casefold())
            if field is None:
                continue
            encoded, attribute, kind = field
            if kind.raw:
                found[attribute] = kind.bind(member, scope)
                continue
            plain = _member(member)
            if plain is None:
                continue
            scope.path = f"{path}.{encoded}" if path else encoded
            found[attribute] = kind.bind(plain, scope)
        scope.struct, scope.path = struct, path
        return cls(**found)

    def read_alias(value: Any, scope: _Scope) -> msgspec.Struct:
        inner = _Scope()
        result = read(value, inner)
        error = inner.saved
        if isinstance(error, _Mismatch):
            error.path = ".".join(part for part in (scope.path, error.path) if part)
            error.struct = scope.struct
        if error is not None:
            raise _Abort(str(error))
        return result

    return _Type(f"api.{name}", cls, read_alias if alias else read)


@cache
def _fields(cls: type[msgspec.Struct]) -> dict[str, tuple[str, str, _Type]]:
    """Folded key → key, attribute, type. Found at first use: a struct may contain itself."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {
        field.encode_name.casefold(): (field.encode_name, field.name, _type(hints[field.name]))
        for field in msgspec.structs.fields(cls)
    }


def _type(annotation: Any) -> _Type:
    """The reader of an annotation."""
    name = ""
    if typing.get_origin(annotation) is Annotated:
        annotation, *extras = typing.get_args(annotation)
        for extra in extras:
            if isinstance(extra, Custom):
                return _Type(extra.go, lambda: None, _custom(extra))
            if isinstance(extra, GoName):
                name = extra.go
    if isinstance(annotation, types.UnionType):
        (annotation,) = [a for a in typing.get_args(annotation) if a is not types.NoneType]
        return _type(annotation)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is list:
        item = _type(args[0])
        go = name or f"[]{item.go}"
        return _Type(go, list, _list(go, item))
    if origin is dict:
        item = _type(args[1])
        go = name or f"map[string]{item.go}"
        return _Type(go, dict, _map(go, item))
    if annotation is bytes:
        return _Type(name, bytes, _bytes(name))
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return _struct(annotation)
    return _SCALARS[annotation]


_SCALARS: dict[Any, _Type] = {
    str: _Type("string", str, _bind_str),
    bool: _Type("bool", bool, _bind_bool),
    int: _Type("int", int, _bind_int),
    Any: _Type("interface {}", lambda: None, _bind_any),
    msgspec.Raw: _Type("json.RawMessage", msgspec.Raw, _bind_raw, raw=True),
}


def _corrupt(text: bytes) -> int:
    """Index of the byte at which Go's base64 decoder gives up."""
    alphabet = frozenset(base64.b64encode(bytes(range(256))) + b"ABCDEFGHIJKLMNOPQRSTUVWXYZ+/")
    alphabet = (alphabet | frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789")) - {ord("=")}
    filled = 0  # characters of the current group of four
    for at, char in enumerate(text):
        if char in b"\r\n":
            continue
        if char in alphabet:
            filled = (filled + 1) % 4
            continue
        if char != ord("=") or filled < 2:
            return at
        rest = [i for i in range(at + 1, len(text)) if text[i] not in b"\r\n"]
        if filled == 3:
            return rest[0] if rest else at
        if not rest:
            return len(text)
        if text[rest[0]] != ord("="):
            return rest[0] - 1
        return rest[1] if len(rest) > 1 else at
    return len(text) - filled
