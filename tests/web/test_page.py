"""The page at /ui, in a browser."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from lhama_testing_browser import CHROMIUM, Page, browsing
from lhama_testing_daemon import Daemon, running
from lhama_testing_http import Server, serving

from lhama.backends.reference.model import Behaviour, write

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


@asynccontextmanager
async def load(daemon: Daemon, model: str, clients: int) -> AsyncIterator[None]:
    """Clients that ask again and again."""
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            body = {"model": model, "prompt": "Tell me about the sea.", "stream": False}
            daemon.call("/api/generate", body | {"options": {"num_predict": 30}})

    asking = [asyncio.create_task(asyncio.to_thread(ask)) for _ in range(clients)]
    try:
        yield
    finally:
        done.set()
        await asyncio.gather(*asking)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: install Debian's chromium")
async def test_the_page_in_a_browser(tmp_path: Path, smollm2: Path) -> None:
    """Under load, by keys only; its picture is the one in the docs."""
    write(tmp_path / "endless.gguf", Behaviour(compute_us=20_000))
    with running(tmp_path / "models") as daemon:
        daemon.create("endless", tmp_path / "endless.gguf")
        # A short answer: with the clients' load beside it, one of a model's own length takes minutes.
        daemon.create("smollm2", smollm2, parameters={"num_predict": 40})
        url = f"{daemon.url}/ui"
        async with load(daemon, "smollm2", 5), browsing(tmp_path / "chromium", url) as page:
            await the_load_is_seen(page)
            await a_chat_by_keys(page)
            await nothing_is_unnamed(page)
            picture = await page.picture()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 10_000
    if not PICTURE.exists():  # removed to have it taken anew
        PICTURE.write_bytes(picture)


async def the_load_is_seen(page: Page) -> None:
    await page.until("$('state').textContent === 'running'")
    # Of a row: model, backend, device, memory, running, waiting, tokens a second, idle.
    await page.until("Number(document.querySelector('#models tr')?.cells[6].textContent) > 0")
    cells = await page.look("[...$('models').rows[0].cells].map(cell => cell.textContent)")
    assert cells[:2] == ["smollm2:latest", "llamacpp"]
    assert re.fullmatch(r"\d+(\.\d)? [kMG]?B", cells[3])
    assert re.fullmatch(r"[1-4] of 4", cells[4])
    drawn = r"/^smollm2:latest: \d+ steps in [\d.]+ ms, [\d.]+ requests in each; the device waited/"
    await page.until(f"{drawn}.test($('line-text').textContent)")
    colors = await page.look(
        "(({width, height}) => new Set(new Uint32Array("
        "$('line').getContext('2d').getImageData(0, 0, width, height).data.buffer)).size)($('line'))"
    )
    assert colors >= 3, "what was prepared, what was computed, and the paper"


async def a_chat_by_keys(page: Page) -> None:
    """From the top of the page: skip to the chat, ask, choose another model, stop its answer."""
    await page.press("Tab")
    assert await page.focus() == "To the chat"
    await page.press("Enter")
    assert await page.focus() == "question"
    await page.write("Why is the sea salty? One sentence.")
    await page.press("Enter")
    await page.until("$('answers').children.length === 2 && !$('send').disabled", 100)
    assert await page.focus() == "question"
    said = await page.look("[...$('answers').children].map(p => p.textContent)")
    assert said[0] == "You: Why is the sea salty? One sentence."
    assert said[1].startswith("smollm2:latest: ")
    assert len(said[1]) > 30
    await page.press("Tab", shift=True)
    assert await page.focus() == "model"
    await page.press("ArrowDown")
    assert await page.look("$('model').value") == "endless:latest"
    await page.press("Tab")
    await page.write("Go on")
    await page.press("Enter")
    await page.until("$('answers').lastChild.textContent.length > 30")
    await page.press("Tab")
    assert await page.focus() == "stop"
    await page.press(" ")
    await page.until("$('answers').lastChild.textContent.endsWith(' (stopped)')")
    assert await page.focus() == "question"


async def nothing_is_unnamed(page: Page) -> None:
    """What a screen reader says of it."""
    spoken = await page.spoken()
    for wanted in (
        *(("heading", "Loaded models"), ("heading", "Assembly line"), ("heading", "Chat")),
        *(("columnheader", "Tokens/s"), ("rowheader", "smollm2:latest"), ("log", "Conversation")),
        *(
            ("combobox", "Model"),
            ("textbox", "Message"),
            ("button", "Send"),
            ("link", "To the chat"),
        ),
    ):
        assert wanted in spoken
    acted_on = {"button", "combobox", "textbox", "link", "image", "region"}
    assert all(name for role, name in spoken if role in acted_on), spoken
