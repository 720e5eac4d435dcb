"""Read a request body as Go's ``encoding/json`` reads it into a struct.

Keys match in any case, unknown ones are ignored, ``null`` leaves the zero value, what follows the
first value is ignored, broken UTF-8 becomes U+FFFD. Errors are Go's, to the letter: clients show
them, and some match on them. The first type error is reported only after the whole value was read,
because an error from a type with its own decoder (``keep_alive``, ``think`` …) wins over it.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, TypeVar

import msgspec

from lhama.daemon.errors import Malformed
from lhama.daemon.protocol import gobase64, goscan
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


@dataclass(frozen=True)
class OrText:
    """Annotation: a string may stand for the value, and becomes what ``wrap`` makes of it.

    Go has such a field read by a decoder of its own, so the field is not named in errors.
    """

    wrap: Callable[[str], Any]


class _Mismatch(Exception):
    """Go's ``UnmarshalTypeError``."""

    def __init__(self, found: str, go: str, struct: str, path: str) -> None:
        super().__init__(found)
        self.found, self.go, self.struct, self.path = found, go, struct, path

    def __str__(self) -> str:
        named = self.struct or self.path
        place = f"struct field {self.struct}.{self.path}" if named else "value"
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


def decode(body: bytes, into: type[T], *, empty: str = "missing request body") -> T:
    """Read ``body`` into the struct. Raises ``Malformed`` with Go's text.

    ``empty``: the text for a body with nothing in it, which the routes word differently.
    """
    try:
        return bind(_parse(body, empty), into)
    except RecursionError:
        raise Malformed(_TOO_DEEP) from None


def bind(value: Any, into: type[T]) -> T:
    """Read a value that is decoded already into the struct. Raises ``Malformed``."""
    scope = _Scope()
    try:
        read = into() if value is None else _struct(into).bind(value, scope)
    except _Abort as error:
        raise Malformed(str(error)) from None
    if scope.saved is not None:
        raise Malformed(str(scope.saved))
    return typing.cast(T, read)


def value(text: str) -> Any:
    """A JSON text's value. Raises ``ValueError`` where there is not exactly one."""
    try:
        return _anything.decode(text)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from None


def type_name(value: Any) -> str:
    """The Go type that a JSON value has where any is taken, as ``%T`` prints it."""
    names = {bool: "bool", str: "string", list: "[]interface {}", dict: "map[string]interface {}"}
    return "<nil>" if value is None else names.get(type(value), "float64")


def json_kind(value: Any) -> str:
    """What JSON calls a value, as Go's errors name it."""
    if isinstance(value, list):
        return "array"
    return {str: "string", bool: "bool", dict: "object"}.get(type(value), "number")


def _parse(body: bytes, empty: str) -> Any:
    """The body's first value. A valid object comes as raw members, anything else as values."""
    try:
        return _object.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    try:
        start, end = goscan.first_value(body)
    except goscan.JsonEmpty:
        raise Malformed(empty) from None
    except goscan.JsonTruncated:
        raise Malformed("unexpected EOF") from None
    except goscan.JsonSyntaxError as error:
        raise Malformed(str(error)) from None
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
    kind = json_kind(value)
    # Go names the number only where it expected one of another kind.
    if kind == "number" and go in ("int", "int32", "int64", "float64", "float32"):
        return f"number {value if isinstance(value, int) else go_float(value).decode()}"
    return kind


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


def _float(go: str) -> _Bind:
    def bind(value: Any, scope: _Scope) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        scope.mismatch(value, go)
        return 0.0

    return bind


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
        try:
            return gobase64.decode(value)
        except ValueError as error:
            scope.save(error)
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


def _or_text(kind: _Type, wrap: Callable[[str], Any]) -> _Bind:
    def bind(value: Any, scope: _Scope) -> Any:
        if isinstance(value, str):
            return wrap(value)
        inner = _Scope()
        bound = kind.bind(value, inner)
        if inner.saved is not None:
            scope.save(inner.saved)
        return bound

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
    """The reader of a struct. Class attributes ``go_package``: where Go has it, if not in ``api``;
    ``go_name``: its name there, if it is another or, for a struct without a name, none; ``go_alias``: the type decodes itself through an alias of that name, so errors inside name the
    struct around it and stop the decoding."""
    name: str = getattr(cls, "go_name", cls.__name__)
    package: str = getattr(cls, "go_package", "api")
    alias: str = getattr(cls, "go_alias", "")
    go = f"{package}.{alias or name}"

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

    return _Type(f"{package}.{name}", cls, read_alias if alias else read)


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
            if isinstance(extra, OrText):
                kind = _type(annotation)
                return _Type(kind.go, kind.zero, _or_text(kind, extra.wrap))
            if isinstance(extra, GoName):
                name = extra.go
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
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
    if annotation is float:
        return _Type(name or "float64", float, _float(name or "float64"))
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
