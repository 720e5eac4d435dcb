"""Built-in renderers write what Ollama's own wrote (fb30760, recorded) for the same conversations."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from lhama_testing_conversations import ASKED, CONVERSATIONS, TOOLS

from lhama.daemon.errors import LhamaError
from lhama.daemon.prompt.renderers import registry, variants
from lhama.daemon.prompt.tools import read_all
from lhama.daemon.wire.messages import Message, ToolCall

RECORDED: dict[str, dict[str, str]] = json.loads(
    (Path(__file__).parent / "ollama_renderings.json").read_text()
)


def render(
    name: str,
    messages: list[Message],
    tools: list[dict[str, Any]] | None = None,
    think: bool | str | None = None,
) -> str:
    return registry.find(name).write(messages, read_all(tools or []), think)


def test_every_renderer_was_recorded() -> None:
    assert set(RECORDED) | {"gemma4"} == set(registry.RENDERERS)


@pytest.mark.parametrize("case", CONVERSATIONS)
@pytest.mark.parametrize("name", RECORDED)
def test_prompts_are_ollamas(name: str, case: str) -> None:
    expected = RECORDED[name][case].replace("{today}", date.today().isoformat())
    assert render(name, *CONVERSATIONS[case]) == expected


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(LhamaError, match='^unknown renderer "x\\\\"y"$') as refused:
        registry.find('x"y')
    assert refused.value.status == 500


@pytest.mark.parametrize(
    ("messages", "refusal"),
    [
        ([], "no messages provided"),
        ([Message("system", "S")], "no user query found in messages"),
        ([Message("user", "<tool_response>r</tool_response>")], "no user query found in messages"),
        (
            [ASKED, Message("developer", "D", images=[b"1"])],
            "developer message cannot contain images",
        ),
    ],
)
def test_qwen38_refuses_what_its_template_refuses(messages: list[Message], refusal: str) -> None:
    with pytest.raises(LhamaError, match=refusal):
        render("qwen3.8", messages)


def test_qwen38_folds_instructions_into_one_turn_and_tells_the_effort() -> None:
    told = [Message("system", " A "), ASKED, Message("developer", "B"), Message("user", "2")]
    text = render("qwen3.8", told, think="low")
    assert text.startswith("<|im_start|>system\nReasoning effort is set to low.")
    assert "unnecessary elaboration.\n\nA\n\nB<|im_end|>\n" in text
    assert render("qwen3.8", [ASKED], think="medium").startswith("<|im_start|>user")


@pytest.mark.parametrize(
    ("written", "thinks"),
    [("/think", True), ("/no_think", False), ("</think>", None), ("/no_think /think", True)],
)
@pytest.mark.parametrize("asked", [True, False])
def test_nemotron3_is_switched_in_words(written: str, thinks: bool | None, asked: bool) -> None:
    text = render("nemotron-3-nano", [Message("user", f"Hi {written}")], think=asked)
    assert text.endswith("<think>\n") == (asked if thinks is None else thinks)
    assert ("/think" in text.replace("</think>", "")) is False
    assert (
        render("nemotron-3.5-nano", [Message("user", f"Hi {written}")]).count(f"Hi {written}") == 1
    )


@pytest.mark.parametrize("name", ["deepseek3.1", "glm-4.7", "qwen3.5", "cohere", "gemma4-large"])
def test_thinking_is_switched_by_the_prompts_end(name: str) -> None:
    on, off = (render(name, [ASKED], think=think) for think in (True, False))
    assert on != off
    assert "hink" in on[-30:] or "hink" in on[:40] or "THINK" in on[-30:]


def test_numbers_are_written_as_go_prints_them() -> None:
    call = ToolCall(
        "f", {"a": 1_000_000, "b": 2.0, "c": 1e-5, "d": None, "e": {"z": 1e21, "a": 2.50}}
    )
    text = render("qwen3-coder", [ASKED, Message("assistant", tool_calls=[call]), ASKED])
    for name, value in {"a": "1e+06", "b": "2", "c": "1e-05", "d": "null"}.items():
        assert f"\n<parameter={name}>\n{value}\n</parameter>" in text
    assert '{"a":2.5,"z":1e+21}' in text


def test_images_are_numbered_through_the_conversation() -> None:
    asked = [
        Message("user", "[img-7] own", images=[b"1"]),
        Message("tool", " spaced", images=[b"2"]),
        Message("user", "[img] and [img]", images=[b"3"]),
        Message("user", "", images=[b"4"]),
    ]
    text = render("qwen3-vl-instruct", asked)
    assert "user\n[img-7] own<" in text
    assert "[img-1] spaced" in text
    assert "user\n[img-2] and [img]<" in text
    assert "user\n[img-3]<" in text


@pytest.mark.parametrize(
    ("renderer", "names", "size", "resolved"),
    [
        ("gemma4", ["gemma4:e4b"], "31B", "gemma4-small"),
        ("gemma4", ["gemma4:26B-a4b"], "4B", "gemma4-large"),
        ("gemma4", ["mine", "host/me/gemma-31b"], "", "gemma4-large"),
        ("gemma4", ["mine"], "12B", "gemma4-large"),
        ("gemma4", ["mine"], "11.9B", "gemma4-small"),
        ("gemma4", ["mine"], "268.10M", "gemma4-small"),
        ("gemma4", ["mine"], "", "gemma4-small"),
        ("gemma4-large", ["gemma4:e4b"], "4B", "gemma4-large"),
        ("", ["gemma4:e4b"], "4B", ""),
    ],
)
def test_gemma4_is_small_or_large(
    renderer: str, names: list[str], size: str, resolved: str
) -> None:
    assert variants.resolved(renderer, names, size) == resolved


def test_tools_keep_their_order_and_lose_unknown_keys() -> None:
    schema = {"type": "string", "minLength": 2, "description": "d"}
    tool = {"function": {"name": "f", "parameters": {"properties": {"z": schema, "a": {}}}}}
    text = render("glm-4.7", [ASKED], [tool])
    assert (
        '"parameters": {"type": "", "properties": {"z": {"type": "string", "description": "d"}, "a": {}}}'
        in text
    )
    assert render("glm-4.7", [ASKED], TOOLS).count('{"type": "function"') == 2
