"""Applications that are no packages: what their public sources send, replayed, and what their
sources read of the answers, checked. Facts from the sources, under the versions named here."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from lhama_testing_clients import Row
from lhama_testing_daemon import Daemon

SKY = [{"role": "user", "content": "Why is the sky blue?"}]
WEATHER = [{"role": "user", "content": "What is the weather in Paris?"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}

Check = Callable[[Daemon], None]


@dataclass(frozen=True)
class Application:
    name: str
    source: str
    """Where the request shapes come from."""
    checks: dict[str, Check]


APPLICATIONS: dict[str, Application] = {}


def application(name: str, source: str, **checks: Check) -> None:
    named = {check.replace("_", " "): function for check, function in checks.items()}
    APPLICATIONS[name] = Application(name, source, named)


def events(daemon: Daemon, path: str, body: Any, headers: dict[str, str]) -> list[Any]:
    """The data of a stream of events, the last of which is ``[DONE]``."""
    request = urllib.request.Request(daemon.url + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as reply:
        lines = reply.read().decode().split("\n\n")
    *data, done, rest = [line.removeprefix("data: ") for line in lines]
    assert (done, rest) == ("[DONE]", "")
    return [json.loads(line) for line in data]


# ----------------------------------------------------------------------------- VS Code Copilot Chat


def copilot_models(daemon: Daemon) -> None:
    version = daemon.call("/api/version")["version"]
    assert [int(part) for part in version.split(".")] >= [0, 6, 4]
    for model in daemon.call("/api/tags")["models"]:
        shown = daemon.call("/api/show", {"model": model["model"]})
        info = shown["model_info"]
        assert info[f"{info['general.architecture']}.context_length"] > 0
        assert isinstance(shown["capabilities"], list)


def copilot_chat(daemon: Daemon) -> None:
    headers = {"Content-Type": "application/json", "Authorization": "Bearer "}
    system = {"role": "system", "content": "You are an assistant."}
    body = {
        "messages": [system, *WEATHER],
        "model": "tools:latest",
        "temperature": 0,
        "top_p": 1,
        "n": 1,
        "stream": True,
        "stream_options": {"include_usage": True},
        "tools": [TOOL],
        "tool_choice": "auto",
    }
    chunks = events(daemon, "/v1/chat/completions", body, headers)
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    (call,) = [call for delta in deltas for call in delta.get("tool_calls", ())]
    assert (call["index"], call["function"]["arguments"]) == (0, '{"city":"Paris"}')
    assert chunks[-1]["usage"]["completion_tokens"] > 0


application(
    "VS Code Copilot Chat",
    "microsoft/vscode-copilot-chat 0ea4ed3",
    models=copilot_models,
    chat_with_tools=copilot_chat,
)


# --------------------------------------------------------------------------------------- Open WebUI


def open_webui_models(daemon: Daemon) -> None:
    version = daemon.call("/api/version")["version"]
    assert all(part.isdigit() for part in version.lstrip("v").split("-")[0].split("."))
    tags = daemon.call("/api/tags")["models"]
    assert all(model["name"] == model["model"] and model["digest"] for model in tags)
    assert "models" in daemon.call("/api/ps")
    assert daemon.call("/v1/models")["object"] == "list"


def open_webui_chat(daemon: Daemon) -> None:
    options = {"temperature": 0, "num_predict": 8, "new_topic_penalty": 0.5, "tfs_z": 1}
    body = {"model": "smollm2:135m", "messages": SKY, "stream": True, "options": options}
    *parts, end = daemon.lines("/api/chat", body)
    assert "".join(part["message"]["content"] for part in parts)
    for name in ("eval", "prompt_eval"):  # it divides one by the other
        assert end[f"{name}_count"] > 0
        assert end[f"{name}_duration"] > 0


def open_webui_embed(daemon: Daemon) -> None:
    body = {"input": ["hello", "bye"], "model": "all-minilm", "truncate": True}
    assert [len(vector) for vector in daemon.call("/api/embed", body)["embeddings"]] == [384, 384]


def open_webui_unload(daemon: Daemon) -> None:
    body = {"model": "smollm2:135m", "prompt": "", "keep_alive": 0}
    assert daemon.call("/api/generate", {**body, "stream": False})["done_reason"] == "unload"


application(
    "Open WebUI",
    "open-webui 0.12.4",
    models=open_webui_models,
    chat=open_webui_chat,
    embeddings=open_webui_embed,
    unload=open_webui_unload,
)


# ----------------------------------------------------------------------------------------- Continue


def continue_show(daemon: Daemon) -> None:
    shown = daemon.call("/api/show", {"name": "smollm2:135m"})
    lines = shown["parameters"].split("\n")
    found = [re.fullmatch(r'(\S+)\s+((?:".*")|\S+)', line) for line in lines]
    assert all(found)
    stops = [json.loads(match[2]) for match in found if match and match[1] == "stop"]
    assert "<|im_end|>" in stops
    assert ".Suffix" not in shown["template"]


def continue_chat(daemon: Daemon) -> None:
    options = {"temperature": 0, "num_predict": 8, "num_ctx": 2048, "stop": ["<|im_end|>"]}
    message = {**SKY[0], "images": None}
    body = {"model": "smollm2:135m", "messages": [message], "options": options, "stream": True}
    lines = list(daemon.lines("/api/chat", {**body, "keep_alive": 1800}))
    assert all(line["message"]["role"] == "assistant" and "error" not in line for line in lines)


def continue_tools(daemon: Daemon) -> None:
    options = {"temperature": 0, "num_ctx": 2048}
    body = {"model": "tools", "messages": WEATHER, "options": options, "keep_alive": 1800}
    reply = daemon.call("/api/chat", {**body, "tools": [TOOL], "stream": False})
    (call,) = reply["message"]["tool_calls"]
    assert call["function"]["arguments"] == {"city": "Paris"}


application(
    "Continue",
    "continuedev/continue 0108be5",
    show=continue_show,
    chat=continue_chat,
    tools=continue_tools,
)


# ----------------------------------------------------------------------------------- Home Assistant


def home_assistant_tools(daemon: Daemon) -> None:
    """Its tool results carry neither a name nor an id."""
    system = {"role": "system", "content": "You control a home."}
    body = {
        "model": "tools:latest",
        "messages": [system, *WEATHER],
        "tools": [TOOL],
        "stream": True,
        "keep_alive": -1,
        "options": {"num_ctx": 2048},
        "think": False,
    }
    cold = {**body, "options": {"num_ctx": 2048, "temperature": 0}}  # the check needs certainty
    first, last = daemon.lines("/api/chat", cold)
    assert first["message"]["tool_calls"][0]["function"]["arguments"] == {"city": "Paris"}
    assert first["message"]["content"] == ""
    assert last["done"]
    call = {"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}
    turns = [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": '{"data":"Sunny","error":null}'},
    ]
    cold["messages"] = [*cold["messages"], *turns]
    assert "".join(line["message"]["content"] for line in daemon.lines("/api/chat", cold))


def home_assistant_structure(daemon: Daemon) -> None:
    schema = {
        "type": "object",
        "properties": {"color": {"type": "string", "enum": ["blue", "red"]}},
        "required": ["color"],
    }
    body = {"model": "smollm2:135m", "messages": SKY, "stream": True, "keep_alive": "300s"}
    lines = daemon.lines("/api/chat", {**body, "format": schema, "options": {"num_ctx": 2048}})
    assert "color" in json.loads("".join(line["message"]["content"] for line in lines))


application(
    "Home Assistant",
    "home-assistant/core 0d0db90",
    tools=home_assistant_tools,
    structured_output=home_assistant_structure,
)


# -------------------------------------------------------------------------------- JetBrains (Koog)

CAPABILITIES = {"audio", "completion", "embedding", "insert", "vision", "thinking", "tools"}
"""Koog reads these and fails on any other."""


def koog_models(daemon: Daemon) -> None:
    for model in daemon.call("/api/tags")["models"]:
        assert {"name", "model", "size", "modified_at", "digest"} <= model.keys()
        shown = daemon.call("/api/show", {"name": model["name"]})
        assert set(shown["capabilities"]) <= CAPABILITIES
        details = shown["details"]
        for name in ("format", "family", "parameter_size", "quantization_level"):
            assert isinstance(details[name], str)


def koog_chat(daemon: Daemon) -> None:
    body = {"model": "tools:latest", "messages": WEATHER, "options": {"temperature": 0.0}}
    called = daemon.call("/api/chat", {**body, "tools": [TOOL], "stream": False})
    (call,) = called["message"]["tool_calls"]
    assert call["function"]["arguments"] == {"city": "Paris"}
    assert called["message"]["content"] == ""
    body |= {"model": "smollm2:135m", "messages": SKY, "stream": True}
    assert "".join(line["message"]["content"] for line in daemon.lines("/api/chat", body))


def koog_embed(daemon: Daemon) -> None:
    reply = daemon.call("/api/embeddings", {"model": "all-minilm", "prompt": "hello"})
    assert len(reply["embedding"]) == 384


application(
    "JetBrains Koog",
    "JetBrains/koog 2b58724",
    models=koog_models,
    chat_and_tools=koog_chat,
    embeddings=koog_embed,
)


# -------------------------------------------------------------------------------------------- tests


@pytest.mark.parametrize("name", APPLICATIONS)
def test_application(daemon: Daemon, name: str) -> None:
    shape = APPLICATIONS[name]
    row = Row(name, {"requests of": shape.source}, dict.fromkeys(shape.checks, False))
    try:
        for check, function in shape.checks.items():
            function(daemon)
            row.checks[check] = True
    finally:
        row.write()
