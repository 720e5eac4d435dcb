"""Which Python type stands for which of Go's, and how each is read from a JSON value."""

from __future__ import annotations

import functools
import math
import types
import typing
from collections.abc import Callable, Container
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, Any

import msgspec

from lhama.daemon.protocol import gobase64, govalue
from lhama.daemon.protocol.annotations import Custom, GoName, OrderedMap, OrText
from lhama.daemon.protocol.govalue import Abort, Mismatch, Number, Object, Scope, members, plain

_Bind = Callable[[Any, Scope], Any]


@dataclass(frozen=True)
class Type:
    """How a Go type is read: its name, its zero value, its reader."""

    go: str
    zero: Callable[[], Any]
    bind: _Bind
    raw: bool = False
    nil: bool = False
    """``null`` makes it nil again; other types stay what they were."""
    merges: bool = False
    """A second value is added to the first."""
    missing: str = ""
    """What is wrong where the value is not there, if that is an error."""


# ------------------------------------------------------------------- readers, one for each type


def _str(value: Any, scope: Scope) -> str:
    if isinstance(value, str):
        return value
    scope.mismatch(value, "string")
    return ""


def _bool(value: Any, scope: Scope) -> bool:
    if isinstance(value, bool):
        return value
    scope.mismatch(value, "bool")
    return False


def _int(value: Any, scope: Scope) -> int:
    whole = value
    if isinstance(value, Number) and value.is_integer():
        whole = int(value.text)
    if isinstance(whole, int) and not isinstance(whole, bool) and -(2**63) <= whole < 2**63:
        return whole
    scope.mismatch(value, "int")
    return 0


def _float(go: str) -> _Bind:
    def bind(value: Any, scope: Scope) -> float:
        if isinstance(value, int | float | Number) and not isinstance(value, bool):
            number = float(value.text if isinstance(value, Number) else value)
            if math.isfinite(number):
                return number
        scope.mismatch(value, go)
        return 0.0

    return bind


def _any(value: Any, scope: Scope) -> Any:
    try:
        return plain(value)
    except Mismatch as error:
        scope.save(error)
        return None


def _raw(value: Any, scope: Scope) -> msgspec.Raw:
    return value if isinstance(value, msgspec.Raw) else msgspec.Raw(govalue.text(value))


def _bytes(go: str) -> _Bind:
    """Base64 text, or what Go reads into bytes as well: an array of numbers below 256."""

    def bind(value: Any, scope: Scope) -> bytes:
        if isinstance(value, list):
            return bytes(_byte(item, scope) for item in value)
        if not isinstance(value, str):
            scope.mismatch(value, go)
            return b""
        try:
            return gobase64.decode(value)
        except ValueError as error:
            scope.save(error)
            return b""

    return bind


def _byte(value: Any, scope: Scope) -> int:
    if value is None:
        return 0
    text = value.text if isinstance(value, Number) else repr(value)
    if not isinstance(value, bool) and text.isdigit() and int(text) < 256:
        return int(text)
    scope.mismatch(value, "uint8")
    return 0


def _list(go: str, item: Type) -> _Bind:
    def bind(value: Any, scope: Scope) -> list[Any]:
        if isinstance(value, list):
            return [item.zero() if v is None else item.bind(v, scope) for v in value]
        scope.mismatch(value, go)
        return []

    return bind


def _map(go: str, item: Type) -> _Bind:
    def bind(value: Any, scope: Scope) -> dict[str, Any]:
        if isinstance(value, dict | Object):
            return {k: item.zero() if v is None else item.bind(v, scope) for k, v in members(value)}
        scope.mismatch(value, go)
        return {}

    return bind


def _custom(custom: Custom) -> _Bind:
    def bind(value: Any, scope: Scope) -> Any:
        try:
            return custom.read(plain(value, huge=True))
        except ValueError as error:
            raise Abort(error, scope) from None

    return bind


def _or_text(kind: Type, wrap: Callable[[str], Any]) -> _Bind:
    def bind(value: Any, scope: Scope) -> Any:
        if isinstance(value, str):
            return wrap(value)
        inner = Scope(scope.member)
        bound = kind.bind(value, inner)
        scope.saved = scope.saved or inner.saved
        return bound

    return bind


def _apart(bind: _Bind) -> _Bind:
    """A reader for a Go type that decodes itself: an error inside stops everything, and is told
    as one of the place around it."""

    def read(value: Any, scope: Scope) -> Any:
        inner = Scope(scope.member)
        try:
            result = bind(value, inner)
        except Abort as stopped:
            raise Abort(stopped.error, scope) from None
        if inner.saved is not None:
            raise Abort(inner.saved, scope)
        return result

    return read


def _ordered_map(annotation: OrderedMap, item: Type) -> _Bind:
    read = _apart(_map("", item))

    def bind(value: Any, scope: Scope) -> Any:
        if not isinstance(value, dict | Object):
            raise Abort(ValueError(annotation.not_object), scope)
        return read(value, scope)

    return bind


_Field = tuple[str, str, Type]
"""Key, attribute, type."""


@cache
def struct(cls: type[msgspec.Struct]) -> Type:
    """The reader of a struct. Class attributes ``go_package``: where Go has it, if not in ``api``;
    ``go_name``: its name there, if it is another or, for a struct without a name, none;
    ``go_alias``: the type decodes itself through an alias of that name; ``go_struct``: what Go
    prints for a type without a name, be it the struct's own or the one it decodes itself through."""
    name: str = getattr(cls, "go_name", cls.__name__)
    package: str = getattr(cls, "go_package", "api")
    alias: str = getattr(cls, "go_alias", "")
    unnamed: str = getattr(cls, "go_struct", "")
    go = unnamed or f"{package}.{alias or name}"
    apart = bool(alias or (unnamed and name))

    def read(value: Any, scope: Scope) -> msgspec.Struct:
        if not isinstance(value, dict | Object):
            scope.mismatch(value, go)
            return cls()
        around, path = scope.struct, scope.path
        scope.struct = name
        fields = _fields(cls)
        found: dict[str, Any] = {}
        for key, member in members(value):
            field = fields.get(key.casefold())
            if field is None:
                continue
            encoded, attribute, kind = field
            scope.path = f"{path}.{encoded}" if path else encoded
            content = member if kind.raw else scope.member(member)
            if content is None:
                if kind.nil:
                    found.pop(attribute, None)
                elif kind.missing:
                    found[attribute] = kind.zero()
                continue
            before = found.get(attribute) if kind.merges else None
            found[attribute] = kind.bind(content, scope)
            if before:
                found[attribute] = before | found[attribute]
        scope.struct, scope.path = around, path
        if scope.saved is None:
            _complete(fields, found)
        return cls(**found)

    def zero() -> msgspec.Struct:
        _complete(_fields(cls), ())
        return cls()

    return Type(f"{package}.{name}" if name else go, zero, _apart(read) if apart else read)


def _complete(fields: dict[str, _Field], found: Container[str]) -> None:
    """Raises ``Abort`` for a member that must be there and is not."""
    for _, attribute, kind in fields.values():
        if kind.missing and attribute not in found:
            raise Abort(ValueError(kind.missing), Scope(plain))


@cache
def _fields(cls: type[msgspec.Struct]) -> dict[str, _Field]:
    """By folded key. Found at first use: a struct may contain itself."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {
        field.encode_name.casefold(): (field.encode_name, field.name, _type(hints[field.name]))
        for field in msgspec.structs.fields(cls)
    }


def _type(annotation: Any) -> Type:
    """The reader of an annotation."""
    extras: list[Any] = []
    if typing.get_origin(annotation) is Annotated:
        annotation, *extras = typing.get_args(annotation)
    for extra in extras:
        if isinstance(extra, Custom):
            return Type(extra.go, lambda: None, _custom(extra), nil=True)
        if isinstance(extra, OrText):
            kind = _type(annotation)
            read = _or_text(kind, extra.wrap)
            empty = functools.partial(extra.wrap, "")
            return Type(kind.go, empty, read, missing=extra.missing)
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        (inner,) = [a for a in typing.get_args(annotation) if a is not types.NoneType]
        kind = _type(Annotated[inner, *extras] if extras else inner)
        return replace(kind, nil=True)
    return _plain_type(annotation, extras)


def _plain_type(annotation: Any, extras: list[Any]) -> Type:
    """The reader of an annotation that is no pointer and has no decoder of its own."""
    name = next((extra.go for extra in extras if isinstance(extra, GoName)), "")
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is list:
        item = _type(args[0])
        go = name or f"[]{item.go}"
        return Type(go, list, _list(go, item), nil=True)
    if origin is dict:
        item = _type(args[1])
        for extra in extras:
            if isinstance(extra, OrderedMap):
                return Type("", dict, _ordered_map(extra, item), nil=True)
        go = name or f"map[string]{item.go}"
        return Type(go, dict, _map(go, item), nil=True, merges=True)
    if annotation is float:
        go = name or "float64"
        return Type(go, float, _float(go))
    if annotation is bytes:
        return Type(name, bytes, _bytes(name), nil=True)
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return struct(annotation)
    return _SCALARS[annotation]


_SCALARS: dict[Any, Type] = {
    str: Type("string", str, _str),
    bool: Type("bool", bool, _bool),
    int: Type("int", int, _int),
    Any: Type("interface {}", lambda: None, _any, nil=True),
    msgspec.Raw: Type("json.RawMessage", msgspec.Raw, _raw, raw=True),
}
