"""Functions that templates may call: Ollama's four, and guarded forms of text/template's own.

The built-ins that can build text are guarded, because a template can double a string 40 times or
ask ``printf`` for a width of a thousand million.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from typing import Any

from gotpl.runtime.sync_vm import _execution_function_registry

from lhama.daemon.errors import LhamaError
from lhama.daemon.prompt.govalues import plain
from lhama.daemon.prompt.jsontext import marshal

RENDER_CPU_SECONDS = 0.6
"""CPU time of one rendering; a conversation of 1,000 messages takes a tenth of it."""
MAX_OUTPUT_CHARS = 16 * 1024 * 1024
"""Of one rendering; four times a prompt of a million tokens."""
MAX_FUNCTION_CHARS = 4 * MAX_OUTPUT_CHARS
"""All that functions return in one rendering together."""
MAX_FORMAT_WIDTH = 4096

TICK = "lhamaTick"
"""Called by every iteration and definition; ``gotemplate`` puts it there."""

_WIDTH = re.compile(r"%[-+# 0]*(?:\[\d+\])?(\*|\d*)(?:\.(?:\[\d+\])?(\*|\d*))?")
_TYPESCRIPT = {
    "string": "string",
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "array": "any[]",
    "object": "Record<string, any>",
    "null": "null",
}


class RenderBudgetError(LhamaError):
    """A template loops, or its output explodes."""

    status = 400


class _Meter(threading.local):
    """What the rendering in progress on this thread has used."""

    deadline = 0.0
    chars = 0
    spent: RenderBudgetError | None = None


_meter = _Meter()


def start_meter() -> None:
    """Begin one rendering on this thread."""
    _meter.deadline = time.thread_time() + RENDER_CPU_SECONDS
    _meter.chars = 0
    _meter.spent = None


def spent() -> RenderBudgetError | None:
    """The budget error behind whatever gotpl made of it."""
    return _meter.spent


def _refuse(reason: str) -> RenderBudgetError:
    _meter.spent = RenderBudgetError(f"chat template stopped: {reason}")
    return _meter.spent


def tick() -> str:
    """Stops the rendering at its deadline. CPU time, so that a busy machine stops none."""
    if time.thread_time() > _meter.deadline:
        raise _refuse(f"it runs longer than {RENDER_CPU_SECONDS} s")
    return ""


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: object) -> Any:
        tick()
        result = function(*arguments)
        if isinstance(result, str):
            _meter.chars += len(result)
            if _meter.chars > MAX_FUNCTION_CHARS:
                raise _refuse("its output grows without end")
        return result

    return call


def _printf(template: object, *values: object) -> Any:
    for width, precision in _WIDTH.findall(str(template)):
        for number in (width, precision):
            if number == "*" or (number and (len(number) > 6 or int(number) > MAX_FORMAT_WIDTH)):
                raise _refuse(f"printf width {number!r} is not accepted")
    return _BUILT_IN["printf"](template, *values)


def _index(value: object, *indexes: object) -> Any:
    for position in indexes:
        value = _BUILT_IN["index"](getattr(value, "items", plain(value)), position)
    return value


def _slice(value: object, *indexes: object) -> Any:
    return _BUILT_IN["slice"](getattr(value, "items", plain(value)), *indexes)


def _json(value: object = None) -> str:
    return marshal(plain(value) if not isinstance(value, list) else [plain(v) for v in value])


def _typescript(value: object = None) -> str:
    """The TypeScript type of one tool parameter."""
    schema = plain(value)
    if not isinstance(schema, Mapping):
        return "any"
    if choices := schema.get("anyOf"):
        return " | ".join(_typescript(choice) for choice in choices)
    kinds = schema.get("type") or []
    names = [kinds] if isinstance(kinds, str) else kinds
    return " | ".join(_TYPESCRIPT.get(name, "any") for name in names) or "any"


def _today(days_ago: int = 0) -> str:
    return (date.today() - timedelta(days=days_ago)).isoformat()


_BUILT_IN: Mapping[str, Callable[..., Any]] = _execution_function_registry("go", {})

FUNCTIONS: dict[str, Callable[..., Any]] = {
    TICK: tick,
    "json": _guarded(_json),
    "currentDate": lambda *_: _today(),
    "yesterdayDate": lambda *_: _today(days_ago=1),
    "toTypeScriptType": _guarded(_typescript),
    "printf": _guarded(_printf),
    "index": _index,
    "slice": _slice,
    **{name: _guarded(_BUILT_IN[name]) for name in ("print", "println", "html", "js", "urlquery")},
}
