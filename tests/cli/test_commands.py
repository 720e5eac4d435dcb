"""The verbs against a real HTTP server: what they send, what they print, how they fail."""

from __future__ import annotations

import hashlib
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lhama_testing_golden import recordings
from lhama_testing_replay import Lhama, Replay, Reply, ndjson


def recorded(name: str) -> Any:
    """The recorded reply's JSON, or a skipped test where there are no recordings."""
    for group in ("general", "ps", "show"):
        for parameter in recordings(group):
            recording = parameter.values[0]
            if recording is None:
                pytest.skip("no recordings of a real server beside this checkout")
            if recording.name == name:
                return json.loads(recording.reply)
    raise AssertionError(f"no recording {name}")


def say(*parts: str, key: str = "response") -> list[dict[str, Any]]:
    chunks: list[dict[str, Any]] = [{key: part, "done": False} for part in parts]
    return [*chunks, {key: "", "done": True, "eval_count": 2, "eval_duration": 1_000_000_000}]


# ------------------------------------------------------------------------- recorded by Ollama


def test_list_of_a_recorded_server(server: Replay, lhama: Lhama) -> None:
    server.on("GET /api/tags", ndjson(recorded("general_tags")))
    lines = lhama("list").out.splitlines()
    assert lines[0].split() == ["NAME", "ID", "SIZE", "MODIFIED"]
    assert lines[1].startswith("gemma3:270m     14f8ac0fb3c4    253 MB    ")
    assert lines[2].startswith("smollm2:135m    fd5f44c0b5af    98 MB     ")
    assert lhama("ls").out.splitlines()[1:] == lines[1:]
    assert [row.split()[0] for row in lhama("list", "SMOL").out.splitlines()[1:]] == [
        "smollm2:135m"
    ]


def test_ps_of_a_recorded_server(server: Replay, lhama: Lhama) -> None:
    answer = recorded("ps_keep_alive_300")
    server.on("GET /api/ps", ndjson(answer))
    header, row = lhama("ps").out.splitlines()
    assert header.split() == ["NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"]
    assert row.split("  ")[0] == "smollm2:135m"
    assert "209 MB    100% CPU     4096" in row
    answer["models"][0]["expires_at"] = "2319-03-05T09:25:18.6Z"
    server.on("GET /api/ps", ndjson(answer))
    assert lhama("ps").out.splitlines()[1].endswith("Forever")
    answer["models"][0]["expires_at"] = "2020-03-05T09:25:18.6Z"
    server.on("GET /api/ps", ndjson(answer))
    assert lhama("ps").out.splitlines()[1].endswith("Stopping...")


def test_show_of_a_recorded_server(server: Replay, lhama: Lhama) -> None:
    server.on("POST /api/show", ndjson(recorded("show_c8")))
    assert lhama("show", "c8").out == SHOWN
    asked, about_lhama = server.seen
    assert asked.json == {"model": "c8", "verbose": False}
    assert about_lhama.path.startswith("/api/lhama/"), "a recorded server knows none of it"
    server.on("POST /api/show", ndjson(recorded("show_c7_list")))
    assert lhama("show", "c7").out.rstrip().endswith("  License\n    MIT\n    Apache")
    verbose = lhama("show", "c7", "-v").out
    assert "\n  Metadata\n" in verbose
    assert "general.basename" in verbose
    assert "\n  Tensors\n" in verbose


SHOWN = """\
  Model
    architecture        llama
    parameters          134.52M
    context length      8192
    embedding length    576
    quantization        Q4_1

  Capabilities
    completion

  Parameters
    stop    "<|im_start|>"
    stop    "<|im_end|>"

  System
    SYS

"""


@pytest.mark.parametrize("part", ["modelfile", "parameters", "template", "system", "license"])
def test_show_one_part(server: Replay, lhama: Lhama, part: str) -> None:
    server.on("POST /api/show", ndjson({part: "only this", "details": {}}))
    assert lhama("show", "m", f"--{part}").out == "only this\n"


def test_show_takes_one_part_only(server: Replay, lhama: Lhama) -> None:
    outcome = lhama("show", "m", "--system", "--license")
    assert outcome.code == 1
    assert outcome.err.startswith("Error: only one of '--license'")
    assert server.seen == []


# --------------------------------------------------------------------------------- small verbs


def test_cp(server: Replay, lhama: Lhama) -> None:
    server.on("POST /api/copy", Reply())
    assert lhama("cp", "a", "b").out == "copied 'a' to 'b'\n"
    assert server.seen[0].json == {"source": "a", "destination": "b"}


def test_rm_unloads_and_deletes(server: Replay, lhama: Lhama) -> None:
    server.on("POST /api/generate", ndjson({"done": True, "done_reason": "unload"}))
    server.on("DELETE /api/delete", Reply())
    assert lhama("rm", "a", "b").out == "deleted 'a'\ndeleted 'b'\n"
    assert [s.json["model"] for s in server.seen] == ["a", "a", "b", "b"]


def test_rm_of_nothing(server: Replay, lhama: Lhama) -> None:
    missing = Reply(404, [b'{"error":"model \'a\' not found"}'])
    server.on("POST /api/generate", missing)
    server.on("DELETE /api/delete", missing)
    outcome = lhama("rm", "a")
    assert (outcome.code, outcome.err) == (1, "Error: model 'a' not found")


def test_stop(server: Replay, lhama: Lhama) -> None:
    server.on("POST /api/generate", ndjson({"done": True, "done_reason": "unload"}))
    assert lhama("stop", "a").code == 0
    assert server.seen[0].json["keep_alive"] == "0s"
    server.on("POST /api/generate", Reply(404, [b'{"error":"model \'a\' not found"}']))
    assert lhama("stop", "a").err == 'Error: couldn\'t find model "a" to stop'


def test_version(server: Replay, lhama: Lhama) -> None:
    server.on("GET /api/version", ndjson({"version": "0.33.0"}))
    out = lhama("--version").out
    assert out.startswith("lhama version is ")
    assert "speaks Ollama 0.33.0" in out


def test_plugins_names_every_plugin(server: Replay, lhama: Lhama) -> None:
    header, *rows = lhama("plugins", "--no-plugins=llamacpp").out.splitlines()
    assert header.split() == ["NAME", "VERSION", "DEVICES", "TOOLS", "STATE"]
    states = {row.split()[0]: row.split()[-1] for row in rows[:4]}
    assert states["llamacpp"] == "blocked"
    assert states["reference"] == "loaded"
    assert set(states) == {"conversion", "llamacpp", "pytorch", "reference"}


# ---------------------------------------------------------------------------- when things fail


def test_no_server(lhama: Lhama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:1")
    outcome = lhama("list")
    assert outcome.code == 1
    assert "could not connect to a server at http://127.0.0.1:1" in outcome.err
    assert "lhama serve" in outcome.err


def test_a_server_that_cannot_be_found(lhama: Lhama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "nobody.invalid:1")
    shown = lhama("list").err
    assert shown.startswith("Error: could not connect to a server at http://nobody.invalid:1: ")
    assert "Errno" not in shown


def test_a_port_that_is_none_is_told_of(lhama: Lhama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "http://nobody.invalid:port")
    assert lhama("list").err.startswith("warning: OLLAMA_HOST: invalid port 'port', using 80\n")


def test_not_an_ollama(server: Replay, lhama: Lhama) -> None:
    server.on("GET /api/tags", Reply(lines=[b"<html>"]))
    assert "did not answer in JSON" in lhama("list").err
    server.on("GET /api/tags", Reply(502, [b"bad gateway"]))
    assert lhama("list").err == "Error: bad gateway"
    server.on("GET /api/tags", Reply(500))
    assert lhama("list").err.startswith("Error: the server answered 500")


def test_an_answer_cut_short(server: Replay, lhama: Lhama) -> None:
    server.on("POST /api/show", ndjson({}))
    server.on("POST /api/generate", ndjson({"response": "He", "done": False}, cut=True))
    outcome = lhama("run", "m", "hi")
    assert outcome.code == 1
    assert outcome.out.startswith("He")
    assert "the answer ended early" in outcome.err


def test_an_error_within_a_stream(server: Replay, lhama: Lhama) -> None:
    server.on("POST /api/show", ndjson({}))
    server.on("POST /api/generate", ndjson({"response": "He"}, {"error": "the runner died"}))
    outcome = lhama("run", "m", "hi")
    assert (outcome.code, outcome.err) == (1, "Error: the runner died")


# ----------------------------------------------------------------------------------- run, once


def test_run_once(server: Replay, lhama: Lhama) -> None:
    server.on("POST /api/show", ndjson({"capabilities": ["completion"]}))
    server.on("POST /api/generate", ndjson(*say("Hel", "lo")))
    outcome = lhama("run", "m", "say", "hello", "--verbose", "--keepalive", "10", "--think=false")
    assert outcome.out == "Hello\n"
    assert "eval rate:            2.00 tokens/s" in outcome.err
    sent = server.requests("POST /api/generate")[0].json
    assert sent == {"model": "m", "prompt": "say hello", "keep_alive": 10, "think": False}


def test_run_with_piped_text(server: Replay, lhama: Lhama) -> None:
    server.on("POST /api/show", ndjson({}))
    server.on("POST /api/generate", ndjson(*say("ok")))
    lhama("run", "m", "sum up:", stdin="a long text")
    assert server.requests("POST /api/generate")[0].json["prompt"] == "a long text sum up:"


def test_run_without_standard_input(server: Replay, lhama: Lhama) -> None:
    server.on("POST /api/show", ndjson({}))
    server.on("POST /api/generate", ndjson(*say("ok")))
    assert lhama("run", "m", "hi", stdin=None).out == "ok\n"


def test_run_shows_thoughts_apart(server: Replay, lhama: Lhama) -> None:
    server.on("POST /api/show", ndjson({}))
    chunks = [{"thinking": "hm", "response": ""}, *say("yes")]
    server.on("POST /api/generate", ndjson(*chunks))
    assert lhama("run", "m", "q", "--think").out == "Thinking...\nhm\n...done thinking.\n\nyes\n"
    assert server.requests("POST /api/generate")[0].json["think"] is True
    assert lhama("run", "m", "q", "--hidethinking").out == "yes\n"


def test_run_an_embedding_model(server: Replay, lhama: Lhama) -> None:
    server.on("POST /api/show", ndjson({"capabilities": ["embedding"]}))
    server.on("POST /api/embed", ndjson({"embeddings": [[0.5, 1.0]]}))
    assert lhama("run", "m", "text").out == "[0.5, 1.0]\n"
    lhama("run", "m", "text", "--dimensions", "2", "--truncate=false")
    plain, asked = [sent.json for sent in server.requests("POST /api/embed")]
    assert plain == {"model": "m", "input": "text"}
    assert asked == plain | {"dimensions": 2, "truncate": False}


def test_run_an_unknown_model_ends_with_the_pulls_error(server: Replay, lhama: Lhama) -> None:
    server.on("POST /api/show", Reply(404, [b'{"error":"model \'m:latest\' not found"}']))
    server.on("POST /api/pull", ndjson({"error": "pull model manifest: file does not exist"}))
    assert lhama("run", "m", "hi").err == "Error: pull model manifest: file does not exist"


@pytest.mark.parametrize("flag", ["--think=much", "--format=xml", "--truncate=perhaps"])
def test_run_refuses_bad_flags(server: Replay, lhama: Lhama, flag: str) -> None:
    server.on("POST /api/show", ndjson({}))
    assert lhama("run", "m", "hi", flag).err.startswith("Error: invalid ")


# -------------------------------------------------------------------------------------- create

WEIGHTS = b"GGUF not really" * 100_000
DIGEST = "sha256:" + hashlib.sha256(WEIGHTS).hexdigest()
MADE = ndjson({"status": "parsing GGUF"}, {"status": "parsing GGUF"}, {"status": "success"})


def test_create_uploads_what_is_missing(server: Replay, lhama: Lhama, tmp_path: Path) -> None:
    (tmp_path / "w.gguf").write_bytes(WEIGHTS)
    (tmp_path / "Modelfile").write_text("FROM ./w.gguf\nPARAMETER top_k 3\nPARAMETER mirostat 1\n")
    server.on(f"HEAD /api/blobs/{DIGEST}", Reply(404))
    server.on(f"POST /api/blobs/{DIGEST}", Reply(201))
    server.on("POST /api/create", MADE)
    outcome = lhama("create", "mine", "-f", str(tmp_path / "Modelfile"))
    assert outcome.code == 0
    assert outcome.err.splitlines() == [
        "warning: parameter mirostat is deprecated",
        "parsing GGUF",
        "success",
    ]
    assert server.requests(f"POST /api/blobs/{DIGEST}")[0].body == WEIGHTS
    body = server.requests("POST /api/create")[0].json
    assert body["model"] == "mine"
    assert body["files"] == {"w.gguf": DIGEST}
    assert body["parameters"] == {"top_k": 3}


def test_create_uploads_nothing_twice(server: Replay, lhama: Lhama, tmp_path: Path) -> None:
    (tmp_path / "w.gguf").write_bytes(WEIGHTS)
    server.on(f"HEAD /api/blobs/{DIGEST}", Reply(200))
    server.on("POST /api/create", MADE)
    assert lhama("import", "mine", str(tmp_path / "w.gguf")).code == 0
    assert server.requests(f"POST /api/blobs/{DIGEST}") == []
    assert server.requests("POST /api/create")[0].json["files"] == {"w.gguf": DIGEST}


def test_create_from_a_model(server: Replay, lhama: Lhama, tmp_path: Path) -> None:
    (tmp_path / "Modelfile").write_text("FROM smollm2:135m\nSYSTEM hi")
    server.on("POST /api/create", MADE)
    lhama("create", "mine", "-f", str(tmp_path / "Modelfile"), "-q", "Q8_0")
    body = server.seen[0].json
    assert (body["from"], body["system"], body["quantize"]) == ("smollm2:135m", "hi", "Q8_0")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM ./gone.gguf", "no such file: "),
        ("FROM ./empty", "no Modelfile or safetensors files found in "),
        ("FROM ./pickled", "pytorch_model.bin in "),
        ("FROM ./linked", "insecure path: ../Modelfile"),
        ("FROM x\nDRAFT ./gone.gguf", "no such file: "),
        ("FORM x", "(line 1): command must be one of"),
        ("FROM x\nPARAMETER bananas 3", "unknown parameter 'bananas'"),
    ],
)
def test_create_says_what_is_wrong(
    server: Replay, lhama: Lhama, tmp_path: Path, text: str, message: str
) -> None:
    for folder in ("empty", "pickled", "linked"):
        (tmp_path / folder).mkdir()
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"PK\x03\x04")
    (tmp_path / "linked" / "model.safetensors").write_bytes(WEIGHTS)
    (tmp_path / "linked" / "config.json").symlink_to("../Modelfile")
    (tmp_path / "Modelfile").write_text(text)
    outcome = lhama("create", "mine", "-f", str(tmp_path / "Modelfile"))
    assert outcome.code == 1
    assert message in outcome.err
    assert server.seen == []


FOLDER = {
    "model-00001-of-00002.safetensors": True,
    "model-00002-of-00002.safetensors": True,
    "2_Dense/model.safetensors": True,
    "model.safetensors.index.json": True,
    "config.json": True,
    "1_Pooling/config.json": True,
    "chat_template.jinja": True,
    "tokenizer.model": True,
    "vocab.txt": True,
    "consolidated.safetensors": False,
    "pytorch_model.bin": False,
    "extra.gguf": False,
    "README.md": False,
    "a/b/config.json": False,
}
"""What is taken of a folder with all of this."""


def test_create_from_a_folder(server: Replay, lhama: Lhama, tmp_path: Path) -> None:
    digests = {}
    for name in FOLDER:
        path = tmp_path / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        digests[name] = "sha256:" + hashlib.sha256(name.encode()).hexdigest()
        server.on(f"HEAD /api/blobs/{digests[name]}", Reply(200))
    (tmp_path / "Modelfile").write_text("FROM ./model")
    server.on("POST /api/create", MADE)
    assert lhama("create", "mine", "-f", str(tmp_path / "Modelfile")).code == 0
    body = server.requests("POST /api/create")[0].json
    assert body["files"] == {name: digests[name] for name, taken in FOLDER.items() if taken}


def test_create_without_a_modelfile_takes_the_folder(
    server: Replay, lhama: Lhama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "w.gguf").write_bytes(WEIGHTS)
    monkeypatch.chdir(tmp_path)
    server.on(f"HEAD /api/blobs/{DIGEST}", Reply(200))
    server.on("POST /api/create", MADE)
    assert lhama("create", "mine").code == 0
    assert server.requests("POST /api/create")[0].json["files"] == {"w.gguf": DIGEST}


def test_create_with_a_draft(server: Replay, lhama: Lhama, tmp_path: Path) -> None:
    (tmp_path / "w.gguf").write_bytes(WEIGHTS)
    (tmp_path / "Modelfile").write_text("FROM m\nDRAFT ./w.gguf")
    server.on(f"HEAD /api/blobs/{DIGEST}", Reply(200))
    server.on("POST /api/create", MADE)
    modelfile = str(tmp_path / "Modelfile")
    assert lhama("create", "mine", "-f", modelfile, "--draft-quantize", "Q8_0").code == 0
    body = server.requests("POST /api/create")[0].json
    assert (body["draft_files"], body["draft_quantize"]) == ({"w.gguf": DIGEST}, "Q8_0")
    (tmp_path / "Modelfile").write_text("FROM m")
    refused = lhama("create", "mine", "-f", modelfile, "--draft-quantize", "Q8_0")
    assert refused.err == "Error: --draft-quantize requires a DRAFT model"


def test_create_without_a_modelfile(server: Replay, lhama: Lhama, tmp_path: Path) -> None:
    outcome = lhama("create", "mine", "-f", str(tmp_path / "Nothing"))
    assert "cannot read the Modelfile" in outcome.err
    assert "no such file" in lhama("import", "mine", str(tmp_path / "no.gguf")).err
    assert "'lhama create'" in lhama("import", "mine", str(tmp_path)).err


def test_a_refused_upload_shows_the_reason(server: Replay, lhama: Lhama, tmp_path: Path) -> None:
    (tmp_path / "w.gguf").write_bytes(WEIGHTS)
    server.on(f"HEAD /api/blobs/{DIGEST}", Reply(404))
    server.on(f"POST /api/blobs/{DIGEST}", Reply(500, [b'{"error":"no space left on device"}']))
    assert lhama("import", "m", str(tmp_path / "w.gguf")).err == "Error: no space left on device"


# --------------------------------------------------------------------------------- a fast start


@pytest.mark.parametrize("words", ["run -h", "run --help", "help run"])
def test_help_of_a_verb(lhama: Lhama, words: str) -> None:
    outcome = lhama(*words.split())
    assert outcome.code == 0
    assert outcome.out.startswith("Usage: lhama run ")


def test_help_has_a_whole_line_for_each_verb(lhama: Lhama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for group in ((), ("service",)):
        shown = lhama(*group, "--help").out
        assert "..." not in shown.partition("Commands:")[2]
    assert "OLLAMA_HOST" in lhama("help").out


def cpu_of_children() -> float:
    """Seconds; unlike the clock's they are the same on a busy machine."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_help_imports_nothing_heavy_and_is_quick() -> None:
    heavy = ("torch", "llama_cpp", "numpy", "aiohttp", "rich", "msgspec", "uvloop", "structlog")
    program = (
        "import sys\nfrom lhama.daemon.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        f"print([m for m in {heavy!r} if m in sys.modules])"
    )
    took = []
    for _ in range(3):
        before = cpu_of_children()
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )
        took.append(cpu_of_children() - before)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "plugins" in done.stdout
    assert min(took) < 0.3, "0.14 s as measured alone, of the processor's time"


def test_the_api_key_is_sent_where_there_is_one(
    server: Replay, lhama: Lhama, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.on("GET /api/ps", ndjson({"models": []}))
    lhama("ps")
    monkeypatch.setenv("OLLAMA_API_KEY", "secret-of-alice")
    lhama("ps")
    first, second = server.requests("GET /api/ps")
    assert "Authorization" not in first.headers
    assert second.headers["Authorization"] == "Bearer secret-of-alice"
