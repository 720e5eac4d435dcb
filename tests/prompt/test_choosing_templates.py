from __future__ import annotations

import pytest

from lhama.daemon.prompt import autodetect, capabilities
from lhama.daemon.prompt.build import ModelFacts, render
from lhama.daemon.prompt.formats import FORMATS
from lhama.daemon.prompt.select import Renderer, go_template, select
from lhama.daemon.wire.messages import Message, Prompt

PLAIN = "{{ range .Messages }}{{ .Content }}{{ end }}"
TOOLS = "{{ .Tools }}" + PLAIN
ROUND = (
    '{{ .Tools }}{{ range .Messages }}{{ .ToolCalls }}{{ if eq .Role "tool" }}{{ end }}{{ end }}'
)
THINKS = "{{ range .Messages }}{{ if .Thinking }}<t>{{ .Thinking }}</t>{{ end }}{{ end }}"
FIM = "{{ .Prompt }}{{ .Suffix }}"
J_PLAIN = "{{ messages }}"
J_TOOLS = "{{ tools }}"
J_ROUND = "{{ tools }}{{ m.tool_calls }}{% if message.role == 'tool' %}{% endif %}"
J_ALL = J_ROUND + "<think></think>"


@pytest.mark.parametrize(
    ("go", "jinja", "found"),
    [
        ("", "", set()),
        (PLAIN, "", set()),
        (TOOLS, "", {"tools"}),
        (FIM, "", {"insert"}),
        (THINKS, "", {"thinking"}),
        ("plain text that says .Tools and .Suffix", "", set()),
        ("{{ .Broken", "", set()),
        ("", J_PLAIN, set()),
        ("", J_ALL, {"tools", "thinking"}),
        (PLAIN, J_ALL, {"tools", "thinking"}),
        (FIM, J_PLAIN, {"insert"}),
    ],
)
def test_capabilities(go: str, jinja: str, found: set[str]) -> None:
    assert capabilities.of_template(go, jinja) == found


@pytest.mark.parametrize(
    ("go", "jinja", "setting", "chosen"),
    [
        ("", "", None, "none"),
        ("", J_PLAIN, None, "jinja"),
        ("", J_PLAIN, True, "jinja"),
        (PLAIN, "", None, "go"),
        (PLAIN, "", False, "go"),
        (PLAIN, J_PLAIN, None, "go"),
        (PLAIN, J_PLAIN, False, "jinja"),
        (PLAIN, J_TOOLS, None, "jinja"),
        (PLAIN, J_ALL, True, "go"),
        (TOOLS, J_TOOLS, None, "go"),
        (TOOLS, J_ROUND, None, "jinja"),
        (ROUND, J_ROUND, None, "go"),
        (ROUND, J_TOOLS + "<think></think>", None, "go"),
        (ROUND, J_ALL, None, "jinja"),
        (THINKS, J_ROUND, None, "go"),
    ],
)
def test_select(go: str, jinja: str, setting: bool | None, chosen: str) -> None:
    assert select(go, jinja, setting) is Renderer(chosen)
    assert go_template(go, jinja, setting) == (go if chosen == "go" else "")


@pytest.mark.parametrize(
    ("jinja", "name"),
    [
        ("", None),
        ("{{ messages[0].content }}", None),
        ("'<|im_start|>' + m.role + '<|im_end|>'", "chatml"),
        ("'<|im_start|>' + m.role + '<|im_end|>' if tools", None),
        ("'<|im_start|>' '<|im_end|>' '<think>' '</think>'", None),
        ("'<|im_start|>' '<|im_end|>'" + " " * 5000, None),
        ("'<|start_header_id|>' '<|end_header_id|>' '<|eot_id|>'", "llama3-instruct"),
        ("'[INST] ' '<<SYS>>' ' [/INST]'", "llama2-chat"),
        ("'[INST] ' ' [/INST]'", "mistral-instruct"),
        ("'<start_of_turn>' '<end_of_turn>' '<start_of_image>'", "gemma3-instruct"),
        ("'<start_of_turn>' '<end_of_turn>'", "gemma-instruct"),
        ("'<|user|>' '<|end|>' '<|assistant|>'", "phi-3"),
        ("'<|user|>' '<|assistant|>' eos_token", "zephyr"),
        ("'GPT4 Correct ' + role", "openchat"),
        ("'### Instruction:' '### Response:'", "alpaca"),
        ("'### User:' '### Assistant:'", "solar-instruct"),
        ("'<|START_OF_TURN_TOKEN|>' '<|CHATBOT_TOKEN|>'", "command-r"),
        ("'User: ' 'Falcon:'", "falcon-instruct"),
    ],
)
def test_detect(jinja: str, name: str | None) -> None:
    detected = autodetect.detect(jinja)
    assert (detected and detected.name) == name


@pytest.mark.parametrize("known", FORMATS, ids=lambda known: known.name)
def test_every_format_renders_a_conversation(known: object) -> None:
    from lhama_testing_words import WordTokenizer

    template = known.template  # type: ignore[attr-defined]
    turns = [Message("system", "Sys"), Message("user", "Ask"), Message("assistant", "Answer")]
    prompt = Prompt([*turns, Message("user", "More")], go_template=template)
    text = render(prompt, WordTokenizer(), ModelFacts(), 4096).text
    places = [text.index(word) for word in ("Sys", "Ask", "Answer", "More")]
    assert places == sorted(places)
    assert "<no value>" not in text
    for mark in known.stop:  # type: ignore[attr-defined]
        assert mark.strip(":") in text or mark in ("<|system|>", "</s>")
