"""Runs the checks of client programs in the environment their clients are installed in.

    python harness.py URL MODULE…

A program names its clients' packages and decorates its checks. Each check's outcome is printed as
one line of JSON as soon as it is known. Standard library only: nothing of lhama is installed here.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import os
import sys
import time
import traceback
import urllib.request
from collections.abc import Callable
from typing import Any, NoReturn

URL = ""
CHAT, TOOLS, EMBED = "smollm2:135m", "tools", "all-minilm"
ENDLESS, CRASH = "endless", "crash"
"""Reference models: one never ends by itself, one dies within its answer."""

QUESTION = "What is the weather in Paris?"
SCHEMA = {
    "type": "object",
    "properties": {"color": {"type": "string", "enum": ["blue", "red"]}},
    "required": ["color"],
}

_checks: dict[str, Callable[[], Any]] = {}


def check(name: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Register a check of the program being imported; it may be a coroutine function."""

    def register(function: Callable[[], Any]) -> Callable[[], Any]:
        assert name not in _checks, name
        _checks[name] = function
        return function

    return register


def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"Sunny in {city}, 22 degrees"


def tool() -> dict[str, Any]:
    """``get_weather`` as OpenAI's and Ollama's APIs describe a tool."""
    parameters = {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    }
    function = {"name": "get_weather", "description": "Weather", "parameters": parameters}
    return {"type": "function", "function": function}


def call(path: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(URL + path, data, timeout=60) as reply:
        return json.load(reply)


def stopped(model: str = ENDLESS) -> None:
    """Fails unless the model's answers have ended: only then does it go when told to."""
    call("/api/generate", {"model": model, "keep_alive": 0})
    for _ in range(600):
        if all(loaded["name"] != f"{model}:latest" for loaded in call("/api/ps")["models"]):
            return
        time.sleep(0.05)
    raise AssertionError(f"{model} still answers a client that has gone")


def fails(function: Callable[[], Any], *errors: type[BaseException]) -> BaseException:
    """The error of a call that must fail with one of these."""
    try:
        function()
    except errors as error:
        return error
    raise AssertionError("it did not fail")


def _run(module: str) -> None:
    _checks.clear()
    importlib.import_module(module)
    for name, function in list(_checks.items()):
        began = time.monotonic()
        problem = ""
        try:
            result = function()
            if inspect.isawaitable(result):
                asyncio.run(_awaited(result))
        except BaseException:
            problem = traceback.format_exc(limit=-6)
        seconds = round(time.monotonic() - began, 2)
        line = {"program": module, "check": name, "problem": problem, "seconds": seconds}
        print(json.dumps(line), file=sys.__stdout__, flush=True)


async def _awaited(result: Any) -> None:
    await result


def main() -> NoReturn:
    global URL
    url, *modules = sys.argv[1:]
    URL = url
    sys.stdout = sys.stderr  # what clients print is not a result
    for module in modules:
        _run(module)
    sys.stdout.flush()
    os._exit(0)  # threads of clients, daemonic or not, have nothing left to do


if __name__ == "__main__":
    import harness  # the module that the programs import is another than this one

    harness.main()
