"""lhama-openai, installed by pip, between clients of a real daemon and two real servers: another
lhama, and llama.cpp's own."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from lhama_openai.body import body
from lhama_openai.stream import AnswerReader
from lhama_testing_daemon import Daemon, free_port, running
from lhama_testing_environment import Environment

from lhama.backends.reference.model import Behaviour, write
from lhama.plugins.backend import Sampling
from lhama.plugins.text import End, Piece, Question, Turn

ROOT = Path(__file__).parents[2]
KEY = "open-sesame"
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Porto"}}\n</tool_call>'
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
GREEDY = {"temperature": 0, "num_predict": 12, "seed": 1}
HELLO = [{"role": "user", "content": "Say hello in one word."}]

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """With the plugin installed."""
    environment = Environment(tmp_path_factory.mktemp("plugin") / "environment")
    build = environment.bin.parent / "source"
    subprocess.run(["cp", "-r", ROOT / "plugins" / "lhama-openai", build], check=True)
    environment.run("-m", "pip", "install", "-q", "--no-deps", str(build))
    return environment


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Iterator[Daemon]:
    """The other lhama, which wants a key of all but this machine's tests."""
    folder = tmp_path_factory.mktemp("peer")
    with running(folder / "models") as daemon:
        daemon.create("smollm2", smollm2)
        for name, behaviour, more in (
            ("caller", Behaviour(says=f"Let me look. {CALL}"), {"parser": "qwen3"}),
            ("thinker", Behaviour(says="hm\n</think>\n\n42"), {"parser": "qwen3-thinking"}),
            ("endless", Behaviour(compute_us=20_000), {}),
        ):
            path = folder / f"{name}.gguf"
            write(path, behaviour)
            daemon.create(name, path, **more)
        yield daemon


@pytest.fixture(scope="module")
def llama_server(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Iterator[str]:
    """The address of llama.cpp's server on SmolLM2."""
    if find_spec("xllamacpp") is None:
        pytest.skip("needs llama.cpp's server: pip install --no-deps xllamacpp")
    log = tmp_path_factory.mktemp("llama-server") / "log"
    with (
        log.open("wb") as out,
        subprocess.Popen(
            [sys.executable, Path(__file__).parent / "llama_server_script.py", smollm2],
            stdout=subprocess.PIPE,
            stderr=out,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        line = process.stdout.readline().split()
        assert line, log.read_text()
        yield f"{line[1]}/v1"
        process.kill()


@pytest.fixture(scope="module")
def dead() -> str:
    """An address where nobody is."""
    return f"http://127.0.0.1:{free_port()}/v1"


@pytest.fixture(scope="module")
def front(
    environment: Environment, peer: Daemon, dead: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:
    """The lhama that clients talk to; it has no model's weights."""
    folder = tmp_path_factory.mktemp("front")
    servers = {"LHAMA_OPENAI_PEER_URL": f"{peer.url}/v1", "LHAMA_OPENAI_DEAD_URL": dead}
    store = folder / "models"
    with running(store, python=environment.python, **servers) as daemon:
        here = {"OLLAMA_HOST": daemon.url, **servers}
        for name, able in (
            ("smollm2", []),
            ("caller", ["--tools"]),
            ("thinker", ["--thinking"]),
            ("endless", []),
        ):
            add(environment, name, f"peer/{name}:latest", *able, **here)
        yield daemon


def add(environment: Environment, name: str, origin: str, *able: str, **variables: str) -> str:
    return command(environment, "add", name, origin, *able, "--context", "2048", **variables)


def command(environment: Environment, *arguments: str, **variables: str) -> str:
    return environment.run(str(environment.bin / "lhama-openai"), *arguments, **variables)


def chat(daemon: Daemon, model: str, messages: Any = HELLO, **more: Any) -> dict[str, Any]:
    body = {"model": model, "messages": messages, "stream": False, "options": GREEDY, **more}
    reply: dict[str, Any] = daemon.call("/api/chat", body)
    return reply


def refusal(daemon: Daemon, path: str, **body: Any) -> tuple[int, str]:
    with pytest.raises(urllib.error.HTTPError) as caught:
        daemon.call(path, body)
    return caught.value.code, json.load(caught.value)["error"]


def busy(daemon: Daemon, model: str) -> int:
    """Requests that a daemon's model works on."""
    lines = daemon.call("/api/lhama/pipelines")["models"]
    return sum(
        line["running"] + line["waiting"] for line in lines if line["model"].startswith(model)
    )


def until(true: Any) -> None:
    """Wait, or fail by the test's time limit."""
    while not true():
        time.sleep(0.05)


# ----------------------------------------------------------------------------- in front of a lhama


def test_plugins_lists_the_servers(environment: Environment, peer: Daemon) -> None:
    shown = environment.lhama("plugins", LHAMA_OPENAI_PEER_URL=f"{peer.url}/v1")
    assert "openai " in shown
    assert " peer " in shown
    assert "no server is set up" in environment.lhama("plugins")
    doctor = environment.lhama("doctor", OLLAMA_HOST=f"127.0.0.1:{free_port()}")
    assert "openai: no server is set up" in doctor
    assert "lhama[openai]" not in doctor


def test_an_answer_is_the_other_servers(front: Daemon, peer: Daemon) -> None:
    theirs, ours = chat(peer, "smollm2"), chat(front, "smollm2")
    assert ours["message"] == theirs["message"]
    for count in ("prompt_eval_count", "eval_count", "done_reason"):
        assert ours[count] == theirs[count]


def test_it_streams(front: Daemon) -> None:
    body = {"model": "smollm2", "messages": HELLO, "options": GREEDY}
    lines = list(front.lines("/api/chat", body))
    assert len(lines) > 3
    said = "".join(line["message"]["content"] for line in lines)
    assert said == chat(front, "smollm2")["message"]["content"]


def test_other_protocols_are_served_from_it(front: Daemon) -> None:
    body = {"model": "smollm2", "messages": HELLO, "max_tokens": 12, "temperature": 0}
    said = chat(front, "smollm2")["message"]["content"]
    assert front.call("/v1/chat/completions", body)["choices"][0]["message"]["content"] == said
    assert front.call("/v1/messages", body)["content"][0]["text"] == said


def test_raw_text_goes_on(front: Daemon, peer: Daemon) -> None:
    body = {"model": "smollm2", "prompt": "1, 2, 3,", "raw": True, "stream": False}
    ours = front.call("/api/generate", {**body, "options": GREEDY})["response"]
    theirs = peer.call(
        "/v1/completions",
        {"model": "smollm2", "prompt": "1, 2, 3,", "max_tokens": 12, "temperature": 0},
    )
    assert ours == theirs["choices"][0]["text"]


def test_tools_go_there_and_calls_come_back(front: Daemon) -> None:
    reply = chat(front, "caller", tools=[WEATHER], options={"temperature": 0})["message"]
    [call] = reply["tool_calls"]
    assert call["function"] == {"index": 0, "name": "weather", "arguments": {"city": "Porto"}}
    assert reply["content"].strip() == "Let me look."
    asked = [*HELLO, {"role": "assistant", "content": "", "tool_calls": [call]}]
    asked.append({"role": "tool", "tool_name": "weather", "content": "rain"})
    assert "Let me look." in chat(front, "caller", asked, tools=[WEATHER])["message"]["content"]


def test_thoughts_come_apart(front: Daemon) -> None:
    reply = chat(front, "thinker", think=True, options={"temperature": 0})["message"]
    assert (reply["thinking"].strip(), reply["content"].strip()) == ("hm", "42")


def test_structured_output_is_made_there(front: Daemon) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    options = {**GREEDY, "num_predict": 60}
    reply = chat(front, "smollm2", format=schema, options=options)["message"]["content"]
    assert isinstance(json.loads(reply)["n"], int)


def test_who_hangs_up_here_hangs_up_there_and_others_go_on(front: Daemon, peer: Daemon) -> None:
    body = json.dumps({"model": "endless", "messages": HELLO, "options": {"num_predict": -1}})
    with socket.create_connection(("127.0.0.1", front.port)) as client:
        client.sendall(
            f"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
            f"{body}".encode()
        )
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        assert busy(peer, "endless") == 1
        assert chat(front, "endless", options={"num_predict": 2})["eval_count"] == 2
        assert busy(peer, "endless") == 1
    until(lambda: busy(peer, "endless") == 0)
    assert busy(front, "endless") == 0


def test_what_only_a_model_that_is_here_can_do_is_refused(front: Daemon) -> None:
    for path, more, status, said in (
        ("/api/generate", {"prompt": "x", "template": "{{ .Prompt }}"}, 400, "neither a template"),
        ("/api/generate", {"prompt": "x", "context": [1, 2]}, 400, "no context of tokens"),
        ("/api/chat", {"messages": HELLO, "_debug_render_only": True}, 501, "neither shown nor"),
        ("/api/embed", {"input": "x"}, 501, "does not support embeddings"),
    ):
        found = refusal(front, path, model="smollm2", **more)
        assert found[0] == status
        assert said in found[1]


def test_a_server_that_is_not_there(front: Daemon, environment: Environment, dead: str) -> None:
    """Neither is a model made of it, nor does one that was there harm the others."""
    with pytest.raises(AssertionError, match="Connection refused"):
        add(environment, "x", "dead/m", LHAMA_OPENAI_DEAD_URL=dead, OLLAMA_HOST=front.url)
    path = environment.bin.parent / "gone.gguf"
    environment.run(
        "-c",
        "import sys; from pathlib import Path; from lhama_openai.command import write; "
        "write(Path(sys.argv[1]), 'dead', 'm', 64)",
        str(path),
    )
    front.create("gone", path)
    status, said = refusal(front, "/api/chat", model="gone", messages=HELLO)
    assert status == 502
    assert "dead at http://127.0.0.1" in said
    assert "cannot be reached" in said
    assert chat(front, "smollm2")["message"]["content"]


def test_a_strangers_model_reaches_no_server_that_is_not_set_up(
    front: Daemon, environment: Environment
) -> None:
    path = environment.bin.parent / "stranger.gguf"
    environment.run(
        "-c",
        "import sys; from pathlib import Path; from lhama_openai.command import write; "
        "write(Path(sys.argv[1]), 'evil', 'm', 64)",
        str(path),
    )
    front.create("stranger", path)
    status, said = refusal(front, "/api/chat", model="stranger", messages=HELLO)
    assert status == 500
    assert "the server 'evil' is not set up here: set LHAMA_OPENAI_EVIL_URL" in said


def test_a_key_that_is_wrong_is_said_and_not_shown(
    environment: Environment, tmp_path: Path
) -> None:
    with running(tmp_path / "models", LHAMA_API_KEYS="tests=rightkey") as guarded:
        wrong = {
            "LHAMA_OPENAI_PEER_URL": f"{guarded.url}/v1",
            "LHAMA_OPENAI_PEER_KEY": KEY,
        }
        with pytest.raises(AssertionError) as caught:
            command(environment, "models", **wrong)
        assert "(401)" in str(caught.value)
        assert KEY not in str(caught.value)
        right = {**wrong, "LHAMA_OPENAI_PEER_KEY": "rightkey"}
        assert command(environment, "models", **right).strip() == ""


# ---------------------------------------------------------------------- in front of llama-server


@pytest.fixture(scope="module")
def before_llama_server(
    environment: Environment, llama_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:
    servers = {
        "LHAMA_OPENAI_LLAMA_URL": llama_server,
        "LHAMA_OPENAI_LLAMA_DIALECT": "llama.cpp",
    }
    store = tmp_path_factory.mktemp("before") / "models"
    with running(store, python=environment.python, **servers) as daemon:
        here = {"OLLAMA_HOST": daemon.url, **servers}
        name = command(environment, "models", **servers).strip()
        add(environment, "smollm2", name, "--tools", **here)
        yield daemon


def test_llama_server_streams(before_llama_server: Daemon) -> None:
    body = {"model": "smollm2", "messages": HELLO, "options": GREEDY}
    lines = list(before_llama_server.lines("/api/chat", body))
    assert len(lines) > 3
    assert lines[-1]["done"]
    assert lines[-1]["eval_count"] > 1
    assert lines[-1]["prompt_eval_count"] > 10
    said = "".join(line["message"]["content"] for line in lines)
    assert said == chat(before_llama_server, "smollm2")["message"]["content"]


def test_llama_server_keeps_to_a_schema(before_llama_server: Daemon) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    options = {**GREEDY, "num_predict": 60}
    reply = chat(before_llama_server, "smollm2", format=schema, options=options)
    assert isinstance(json.loads(reply["message"]["content"])["n"], int)


BEGUN = "<tool_call>\n"
"""A model of this size makes no call by itself: its answer is begun for it."""

PORTO = {"city": {"type": "string", "enum": ["Porto"]}}
WEATHER_IN_PORTO = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": PORTO, "required": ["city"]},
    },
}


def test_llama_servers_calls_are_read(llama_server: str) -> None:
    """No protocol of Ollama's can demand a call, so this is asked of the server directly, in the plugin's
    words and one more."""
    question = Question(
        (Turn("user", "What is the weather in Porto?"), Turn("assistant", BEGUN)),
        tools=(WEATHER_IN_PORTO,),
        sampling=Sampling(temperature=0),
        most_tokens=60,
    )
    path, content = body(question, "smollm2", "llama.cpp")
    data = json.dumps({**content, "tool_choice": "required"}).encode()
    reader = AnswerReader()
    with urllib.request.urlopen(llama_server + path, data) as reply:
        news = [one for line in reply for one in reader.feed(line)]
    calls = [call for one in news if isinstance(one, Piece) for call in one.calls]
    assert calls
    assert all((call.name, call.arguments) == ("weather", {"city": "Porto"}) for call in calls)
    assert len({call.id for call in calls}) == len(calls)
    assert isinstance(news[-1], End)


def test_llama_server_takes_tools_and_what_they_gave(before_llama_server: Daemon) -> None:
    call = {"function": {"name": "weather", "arguments": {"city": "Porto"}}}
    asked = [*HELLO, {"role": "assistant", "content": "", "tool_calls": [call]}]
    asked.append({"role": "tool", "tool_name": "weather", "content": "rain"})
    reply = chat(before_llama_server, "smollm2", asked, tools=[WEATHER_IN_PORTO])
    without = chat(before_llama_server, "smollm2")
    assert reply["done"]
    # The tools, the call and its result: all of them are in the prompt.
    assert reply["prompt_eval_count"] > without["prompt_eval_count"] + 60


def test_llama_servers_errors_within_an_answer_are_told(before_llama_server: Daemon) -> None:
    """It refuses a call that it cannot read, after it has begun to answer."""
    begun = [*HELLO, {"role": "assistant", "content": BEGUN}]
    status, said = refusal(
        before_llama_server,
        "/api/chat",
        model="smollm2",
        messages=begun,
        tools=[WEATHER_IN_PORTO],
        options=GREEDY,
        stream=False,
    )
    assert status == 502
    assert said.startswith("llama: The model produced output that does not match")


def test_llama_servers_refusals_are_told(before_llama_server: Daemon) -> None:
    long = [{"role": "user", "content": "word " * 3000}]
    status, said = refusal(before_llama_server, "/api/chat", model="smollm2", messages=long)
    assert status == 400
    assert said.startswith("llama: ")
    assert "context" in said


def test_llama_server_stops_when_a_client_hangs_up(
    before_llama_server: Daemon, llama_server: str
) -> None:
    body = {"model": "smollm2", "messages": HELLO, "options": {"num_predict": 1500, "seed": 3}}
    lines = before_llama_server.lines("/api/chat", body)
    next(lines)
    lines.close()
    until(lambda: busy(before_llama_server, "smollm2") == 0)
    slots = llama_server.removesuffix("/v1") + "/slots"

    def idle() -> bool:
        with urllib.request.urlopen(slots) as reply:
            return not any(slot["is_processing"] for slot in json.load(reply))

    until(idle)
