"""The page at /ui, in a browser."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from lhama_testing_daemon import Daemon, running
from lhama_testing_http import Server, serving

from lhama.backends.reference.model import Behaviour, write

CHROMIUM = shutil.which("chromium")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--hide-scrollbars", "--window-size=1100,760", "--virtual-time-budget=6000"),
)
PICTURE = Path(__file__).resolve().parents[2] / "docs" / "ui.png"


async def test_the_page_needs_nobody_else(server: Server) -> None:
    reply = await server.ask("GET /ui")
    assert (reply.status, reply.header("content-type")) == (200, "text/html; charset=utf-8")
    text = reply.body.decode()
    assert not re.findall(r"(?:src|href)=\"(?!#)", text), "nothing is fetched"
    assert "//" not in re.sub(r"^// .*$", "", text, flags=re.MULTILINE), "from no other host"
    policy = reply.header("content-security-policy") or ""
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy


async def test_the_rules_of_the_api_hold(server: Server) -> None:
    assert (await server.ask("GET /ui", Host="evil.example.com")).status == 403
    assert (await server.ask("GET /ui", Origin="http://evil.example.com")).status == 403
    assert (await server.ask("POST /ui")).status == 405


async def test_it_can_be_turned_off(tmp_path: Path) -> None:
    async with serving(tmp_path / "models", ui=False) as server:
        assert (await server.ask("GET /ui")).status == 404


async def test_every_field_has_a_label(server: Server) -> None:
    text = (await server.ask("GET /ui")).body.decode()
    fields = re.findall(r"<(?:textarea|select|input) id=\"(\w+)\"", text)
    assert len(fields) == 3
    for field in fields:
        assert f'<label for="{field}">' in text
    for section in re.findall(r"<section[^>]*aria-labelledby=\"([\w-]+)\"", text):
        assert f'id="{section}"' in text
    assert 'role="log"' in text
    assert 'role="status"' in text
    assert '<html lang="en">' in text


def browse(daemon: Daemon, profile: Path, *flags: str) -> str:
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", *flags, f"{daemon.url}/ui"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: install Debian's chromium")
def test_the_page_under_load(tmp_path: Path) -> None:
    """A browser sees what runs; its picture is the one in the docs."""
    write(tmp_path / "ref.gguf", Behaviour(prepare_us=2000, compute_us=9000, row_us=500))
    with running(tmp_path / "models") as daemon:
        daemon.create("ref", tmp_path / "ref.gguf")
        done = threading.Event()

        def load() -> None:
            while not done.is_set():
                body = {"model": "ref", "prompt": "x" * 50, "stream": False}
                daemon.call("/api/generate", body | {"options": {"num_predict": 40}})

        clients = [threading.Thread(target=load) for _ in range(6)]
        for client in clients:
            client.start()
        try:
            seen = browse(daemon, tmp_path / "one", "--dump-dom")
            browse(daemon, tmp_path / "two", f"--screenshot={tmp_path / 'ui.png'}")
        finally:
            done.set()
            for client in clients:
                client.join()
    assert re.search(r'<span id="state" role="status">running</span>', seen)
    assert '<th scope="row">ref:latest</th>' in seen
    assert re.search(r"ref:latest: \d+ steps in [\d.]+ ms, [\d.]+ requests in each", seen)
    assert '<option value="ref:latest">' in seen
    picture = (tmp_path / "ui.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 10_000
    if not PICTURE.exists():  # removed to have it taken anew
        PICTURE.write_bytes(picture)
