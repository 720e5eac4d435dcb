"""What is sent: OpenAI's parameters, a dialect's, conversations; and whom it may be sent to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lhama_openai.body import body, messages
from lhama_openai.settings import Server, servers

from lhama.plugins.backend import BackendError, Sampling
from lhama.plugins.text import Call, Question, TextError, Turn

USER = Turn("user", "hello")
SAMPLING = Sampling(temperature=0.5, top_k=7, min_p=0.1, repeat_penalty=1.2, seed=3)


def asked(dialect: str = "openai", **more: Any) -> dict[str, Any]:
    path, found = body(Question((USER,), sampling=SAMPLING, **more), "m", dialect)
    assert path == "/chat/completions"
    json.dumps(found)
    return found


def test_openai_gets_nothing_it_does_not_know() -> None:
    found = asked(most_tokens=9, stop=("END",))
    assert found == {
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": "hello"}],
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 3,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "stop": ["END"],
        "max_completion_tokens": 9,
    }


def test_dialects_get_all_of_the_sampling() -> None:
    vllm, llama = asked("vllm", most_tokens=9), asked("llama.cpp")
    assert (vllm["top_k"], vllm["min_p"], vllm["repetition_penalty"]) == (7, 0.1, 1.2)
    assert vllm["max_tokens"] == 9
    assert (llama["top_k"], llama["repeat_penalty"], llama["repeat_last_n"]) == (7, 1.2, 64)
    assert "max_tokens" not in llama


def test_thinking() -> None:
    assert "reasoning_effort" not in asked()
    assert asked(think=False)["reasoning_effort"] == "none"
    assert asked(think="high")["reasoning_effort"] == "high"
    assert asked("vllm", think=False)["chat_template_kwargs"] == {"enable_thinking": False}
    assert asked("llama.cpp", think=True)["chat_template_kwargs"] == {"enable_thinking": True}


def test_structured_output() -> None:
    assert asked(grammar="json")["response_format"] == {"type": "json_object"}
    found = asked(grammar='{"type": "object"}')["response_format"]
    assert found["json_schema"]["schema"] == {"type": "object"}


def test_a_text_goes_on_without_a_template() -> None:
    path, found = body(Question(text="Once"), "m", "openai")
    assert path == "/completions"
    assert found["prompt"] == "Once"


def test_calls_and_their_answers_get_ids() -> None:
    turns = [
        Turn("assistant", calls=(Call("f", {"x": 1}), Call("g", {}, "own"), Call("f", {"x": 2}))),
        Turn("tool", "two", tool="g"),
        Turn("tool", "one", tool="f"),
        Turn("tool", "three"),
    ]
    said = list(messages(turns))
    assert [call["id"] for call in said[0]["tool_calls"]] == ["call_0_0", "own", "call_0_2"]
    assert said[0]["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"x": 1}'}
    assert [turn["tool_call_id"] for turn in said[1:]] == ["own", "call_0_0", "call_0_2"]


def test_an_answer_to_no_call_is_refused() -> None:
    with pytest.raises(TextError, match="belongs to no call"):
        list(messages([Turn("tool", "hm", tool="f")]))


def test_pictures() -> None:
    [said] = messages([Turn("user", "look", media=(b"\x89PNG...",))])
    assert said["content"][0] == {"type": "text", "text": "look"}
    assert said["content"][1]["image_url"]["url"].startswith("data:image/png;base64,iVBO")
    with pytest.raises(TextError, match="only pictures"):
        list(messages([Turn("user", "hear", media=(b"OggS",))]))


# --------------------------------------------------------------------------------------- settings


def test_variables_go_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "openai.toml"
    file.write_text(
        '[gpu]\nurl = "http://10.0.0.5:8000/v1/"\nkey = "a"\ntimeout = 20\n'
        '[big-box]\nurl = "https://b/v1"\n'
    )
    variables = {
        "LHAMA_OPENAI_CONFIG": str(file),
        "LHAMA_OPENAI_GPU_KEY": "b",
        "LHAMA_OPENAI_GPU_SLOTS": "3",
        "LHAMA_OPENAI_BIG_BOX_DIALECT": "vllm",
        "LHAMA_OPENAI_THIRD_URL": "http://c:1/v1",
    }
    assert servers(variables) == {
        "gpu": Server("gpu", "http://10.0.0.5:8000/v1", "b", timeout=20, slots=3),
        "big-box": Server("big-box", "https://b/v1", dialect="vllm"),
        "third": Server("third", "http://c:1/v1"),
    }


def test_a_key_is_not_printed() -> None:
    assert "sesame" not in repr(Server("gpu", "http://a/v1", "sesame"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("url = 1", "outside of a table"),
        ("[gpu]", "needs a url"),
        ('[gpu]\nurl = "ftp://a/v1"', "needs a url"),
        ('[gpu]\nurl = "http://a/v1"\nkeys = "x"', "no setting keys"),
        ('[gpu]\nurl = "http://a/v1"\ntimeout = "long"', "are numbers"),
        ('[gpu]\nurl = "http://a/v1"\nslots = 0', "above 0"),
        ('[gpu]\nurl = "http://a/v1"\ndialect = "elvish"', "one of openai, vllm"),
        ('[GPU]\nurl = "http://a/v1"', "small letters"),
        ("[gpu", "cannot be read"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "openai.toml"
    file.write_text(text)
    with pytest.raises(BackendError, match=said):
        servers({"LHAMA_OPENAI_CONFIG": str(file)})
