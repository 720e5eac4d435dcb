"""A headless Chromium, driven by its DevTools protocol: keys, what a screen reader gets, pictures."""

from __future__ import annotations

import asyncio
import base64
import itertools
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = shutil.which("chromium")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--hide-scrollbars", "--window-size=1100,760", "--remote-debugging-port=0"),
)
KEYS = {"Tab": 9, "Enter": 13, " ": 32, "ArrowDown": 40}
"""Their codes, without which the browser does nothing by default."""


class Page:
    """One page of the browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)

    async def call(self, method: str, **given: Any) -> dict[str, Any]:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": given})
        while True:
            said = await self._socket.receive_json(timeout=60)
            if said.get("id") == number:
                assert "error" not in said, said
                result: dict[str, Any] = said["result"]
                return result

    async def look(self, expression: str) -> Any:
        """The value of an expression in the page."""
        said = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    async def until(self, expression: str, seconds: float = 60) -> Any:
        """Its value once it is true in JavaScript's sense."""
        deadline = time.monotonic() + seconds
        while not (value := await self.look(expression)):
            assert time.monotonic() < deadline, f"never: {expression}"
            await asyncio.sleep(0.05)
        return value

    async def press(self, key: str, shift: bool = False) -> None:
        text = {"Enter": "\r", " ": " "}.get(key, "")
        given = {"key": key, "windowsVirtualKeyCode": KEYS[key], "modifiers": 8 * shift}
        kind = "keyDown" if text else "rawKeyDown"
        await self.call("Input.dispatchKeyEvent", type=kind, text=text, **given)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **given)

    async def write(self, text: str) -> None:
        await self.call("Input.insertText", text=text)

    async def focus(self) -> str:
        """The id or the text of what has it."""
        return str(await self.look("document.activeElement.id || document.activeElement.text"))

    async def spoken(self) -> list[tuple[str, str]]:
        """Roles and names of all that a screen reader gets."""
        nodes = (await self.call("Accessibility.getFullAXTree"))["nodes"]
        return [
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in nodes
            if not node["ignored"]
        ]

    async def picture(self) -> bytes:
        """The whole page as a PNG."""
        said = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(said["data"])


@asynccontextmanager
async def browsing(profile: Path, url: str) -> AsyncIterator[Page]:
    assert CHROMIUM is not None
    chromium = await asyncio.create_subprocess_exec(
        *(CHROMIUM, *FLAGS, f"--user-data-dir={profile}", url),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(60):
            where = await _page(profile / "DevToolsActivePort", url)
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(where, max_msg_size=0) as ws,
        ):
            page = Page(ws)
            await page.until(f"location.href === '{url}' && document.readyState === 'complete'")
            yield page
    finally:
        chromium.terminate()
        await chromium.wait()


async def _page(said: Path, url: str) -> str:
    """Where the page of this URL is driven, once the browser has written down its port."""
    while not (port := _port(said)):  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    pages = f"http://127.0.0.1:{port}/json/list"
    while True:
        async with aiohttp.ClientSession() as session, session.get(pages) as reply:
            for page in await reply.json(content_type=None):
                if page["type"] == "page" and page["url"] == url:
                    return str(page["webSocketDebuggerUrl"])
        await asyncio.sleep(0.05)


def _port(said: Path) -> str:
    lines = said.read_text().split("\n") if said.exists() else []
    return lines[0] if len(lines) > 1 else ""
