"""Rendered prompts and prompt sizes are those that a real Ollama recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lhama.daemon.errors import BadRequest, RunnerFailed
from lhama.daemon.prompt import autodetect, goparse
from lhama.daemon.prompt.build import ModelFacts, build, render
from lhama.daemon.prompt.fit import TOO_LONG, real_context
from lhama.daemon.wire.messages import Message, Prompt, ToolCall
from lhama.plugins.backend import Tokenizer

GOLDEN = Path(__file__).parents[2].parent / "shared" / "golden"
pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason="no recordings at ../shared/golden")

CHATML = autodetect.detect("<|im_start|><|im_end|>")
DEFAULT_NUM_CTX = 4096


class Recorded(NamedTuple):
    path: str
    request: dict[str, Any]
    reply: dict[str, Any]
    seq: int


def load(name: str) -> Recorded:
    recording = json.loads((GOLDEN / f"{name}.json").read_text())
    request, response = recording["request"], recording["response"]
    body = response["body"]
    reply = json.loads(body) if body.count("\n") <= 1 else {}
    return Recorded(request["path"], json.loads(request["body"]), reply, recording["seq"])


def names(*patterns: str) -> list[str]:
    return sorted(path.stem for pattern in patterns for path in GOLDEN.glob(f"{pattern}.json"))


def rendered_names() -> list[str]:
    found = []
    for path in sorted(GOLDEN.glob("*.json")):
        text = path.read_text()
        if "rendered_template" in text:
            found.append(path.stem)
    return found


def models(seq: int) -> dict[str, dict[str, Any]]:
    """What the ``create`` requests recorded before ``seq`` made, by name."""
    assert CHATML is not None
    made: dict[str, dict[str, Any]] = {
        "smollm2:135m": {"template": CHATML.template},
        "gemma3:270m": {},
    }
    for name in names("create_*"):
        recording = json.loads((GOLDEN / f"{name}.json").read_text())
        done = '"success"' in recording["response"]["body"]
        if done and recording["seq"] < seq:
            request = json.loads(recording["request"]["body"])
            key = request.get("model") or request["name"]
            made.setdefault(key, {}).update({"template": CHATML.template} | request)
    return made


def message(turn: dict[str, Any]) -> list[Message]:
    content = turn.get("content") or ""
    parts = [part["text"] for part in content] if isinstance(content, list) else [content]
    calls = []
    for call in turn.get("tool_calls", ()):
        given = call["function"]["arguments"]
        given = json.loads(given) if isinstance(given, str) else given
        calls.append(ToolCall(call["function"]["name"], given))
    return [
        Message(
            turn.get("role", "").lower(),
            part,
            turn.get("thinking", ""),
            tool_calls=calls,
            tool_name=turn.get("tool_name", ""),
        )
        for part in parts
    ]


def prompt_of(recorded: Recorded) -> Prompt:
    """The request as the web room puts it to the runner."""
    path, request = recorded.path, recorded.request
    model = models(recorded.seq)[request["model"]]
    template = model.get("template", "")
    stored = [m for turn in model.get("messages", ()) for m in message(turn)]
    shared: dict[str, Any] = {
        "think": request.get("think"),
        "truncate": request.get("truncate", True),
        "num_ctx": max(request.get("options", {}).get("num_ctx", DEFAULT_NUM_CTX), 4),
        "context": request.get("context"),
    }
    if shared["think"] is None and "Thinking" in template:
        shared["think"] = True
    if path == "/api/generate":
        if request.get("raw"):
            return Prompt(raw=request["prompt"], **shared)
        system = request.get("system") or model.get("system", "")
        turns = [Message("system", system)] if system else []
        turns += [*stored, Message("user", request["prompt"])]
        return Prompt(
            messages=turns,
            go_template=request.get("template") or template,
            fill=bool(request.get("template") or request.get("suffix")),
            text=request["prompt"],
            suffix=request.get("suffix", ""),
            **shared,
        )
    given = [m for turn in request["messages"] for m in message(turn)]
    first = [] if given[0].role == "system" or "system" not in model else [model["system"]]
    turns = [*(Message("system", text) for text in first), *stored, *given]
    return Prompt(messages=turns, tools=request.get("tools", []), go_template=template, **shared)


@pytest.mark.parametrize("name", rendered_names() if GOLDEN.is_dir() else [])
def test_rendered_text(name: str, smollm2_tokenizer: Tokenizer) -> None:
    recorded = load(name)
    rendered = render(prompt_of(recorded), smollm2_tokenizer, ModelFacts(), DEFAULT_NUM_CTX)
    assert rendered.text == recorded.reply["_debug_info"]["rendered_template"]


@pytest.mark.parametrize(
    "name",
    names(
        "chat_too_long_single",
        "chat_too_long_truncate_false",
        "chat_over_ctx_default",
        "chat_system",
        "chat_basic_nonstream",
        "generate_too_long_*",
        "generate_over_ctx_truncate_default",
        "generate_num_keep_*",
        "generate_num_ctx_*",
        "generate_opt_num_ctx_*",
        "generate_raw",
        "generate_system",
        "generate_template_override",
        "generate_context_empty",
        "suffix_supported",
        "think_generate",
        "think_*_nonstream",
        "tools_bare_call_nonstream",
        "tools_call_nonstream",
    ),
)
def test_prompt_size(name: str, smollm2_tokenizer: Tokenizer) -> None:
    recorded = load(name)
    if not recorded.reply:
        pytest.skip("a stream: its counts are in another recording")
    options = recorded.request.get("options", {})
    prompt = prompt_of(recorded)
    prompt.num_ctx = min(prompt.num_ctx, 8192)  # what the model was trained for
    limit = real_context(prompt.num_ctx)
    keep = options.get("num_keep", 4)
    built = build(prompt, smollm2_tokenizer, ModelFacts(), limit, keep, shift=True)
    assert len(built.tokens) == recorded.reply["prompt_eval_count"]


@pytest.mark.parametrize("name", names("*_over_ctx_truncate_false_stream", "*_shift_false*_false"))
def test_beyond_the_context(name: str, smollm2_tokenizer: Tokenizer) -> None:
    recorded = load(name)
    with pytest.raises(RunnerFailed) as refused:
        build(prompt_of(recorded), smollm2_tokenizer, ModelFacts(), 256, 4, shift=False)
    error = refused.value
    expected = json.loads(recorded.reply["error"])["error"]
    assert error.status == expected.pop("code") == 400
    assert {"message": error.message, "type": error.kind, **error.details} == expected


def test_too_long_without_shift(smollm2_tokenizer: Tokenizer) -> None:
    recorded = load("generate_over_ctx_shift_false")
    with pytest.raises(BadRequest) as refused:
        build(prompt_of(recorded), smollm2_tokenizer, ModelFacts(), 256, 4, shift=False)
    assert refused.value.message == recorded.reply["error"] == TOO_LONG


def test_bad_template() -> None:
    recorded = load("create_template_bad")
    with pytest.raises(BadRequest) as refused:
        goparse.validate(recorded.request["template"])
    assert refused.value.message == recorded.reply["error"]
    recorded = load("generate_template_bad")
    with pytest.raises(goparse.TemplateTextError) as failed:
        goparse.parse(recorded.request["template"])
    assert (failed.value.message, failed.value.status) == (recorded.reply["error"], 500)


def test_detected_chatml(smollm2: Path) -> None:
    shown = load("show_basic").reply
    detected = autodetect.detect(ModelFacts.read(str(smollm2)).jinja)
    assert detected is not None
    assert (detected.name, detected.template) == ("chatml", shown["template"])
    stops = "".join(f'{"stop":<30} "{stop}"\n' for stop in detected.parameters["stop"])
    assert stops.strip() == shown["parameters"]


def test_nothing_detected_for_the_base_model(gemma3: Path) -> None:
    assert autodetect.detect(ModelFacts.read(str(gemma3)).jinja) is None
