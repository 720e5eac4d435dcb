"""The engine: an event loop on a thread of its own, and a request for each answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import aiohttp

from lhama.plugins.backend import Residency
from lhama.plugins.text import Cancel, Question, Tell, TextError
from lhama_openai.body import body
from lhama_openai.settings import Server
from lhama_openai.stream import AnswerReader, complaint

T = TypeVar("T")

CONNECT_SECONDS = 10
TAIL_SECONDS = 1
"""How long a finished answer's connection may take to become reusable."""
MOST_COMPLAINT = 1 << 16

_STATUS = {400: 400, 413: 400, 422: 400, 429: 429, 503: 503, 504: 504}
"""What the client is told; anything else that goes wrong there is a bad gateway, 404 as well: to
Ollama's clients that would mean a model they could pull."""


class OpenAIEngine:
    """``lhama.plugins.text.TextEngine``."""

    def __init__(self, server: Server, model: str, context: int) -> None:
        self.slots = server.slots
        self.context = context
        self.residency = Residency(server.name, 0, 0, notes=(f"{model} at {server.url}",))
        self._server = server
        self._model = model
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="openai", daemon=True)
        self._thread.start()
        self._session = self._wait(self._open())

    def start(self, question: Question, tell: Tell) -> Cancel:
        answer = asyncio.run_coroutine_threadsafe(self._answer(question, tell), self._loop)

        def cancel() -> None:
            answer.cancel()  # the task's: its connection closes, and the server sees that

        return cancel

    def close(self) -> None:
        self._wait(self._session.close())
        self._wait(self._loop.shutdown_default_executor())  # it has looked up names
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    # ---------------------------------------------------------------------------------- the loop

    async def _open(self) -> aiohttp.ClientSession:
        server = self._server
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=server.slots),
            headers={"Authorization": f"Bearer {server.key}"} if server.key else {},
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=CONNECT_SECONDS, sock_read=server.timeout
            ),
            trust_env=True,
        )

    async def _answer(self, question: Question, tell: Tell) -> None:
        """Ask, and tell what comes. Whatever goes wrong is told in words."""
        name = self._server.name
        try:
            await self._ask(question, tell)
        except TextError as error:
            tell(TextError(f"{name}: {error}", error.status))
        except TimeoutError:
            tell(TextError(f"{name}: no answer within {self._server.timeout:g} s", 504))
        except (aiohttp.ClientConnectorError, OSError) as error:
            tell(TextError(f"{name} at {self._server.url} cannot be reached: {error}"))
        except (aiohttp.ClientError, ValueError) as error:
            tell(TextError(f"{name}: the answer broke off: {error}"))
        except Exception as error:
            tell(TextError(f"{name}: {type(error).__name__}: {error}", 500))

    async def _ask(self, question: Question, tell: Tell) -> None:
        where, content = body(question, self._model, self._server.dialect)
        # Never after a redirect: the key and the prompt are for this server.
        asking = self._session.post(self._server.url + where, json=content, allow_redirects=False)
        async with asking as response:
            if response.status != 200:
                raise await _refusal(response)
            if response.content_type != "text/event-stream":
                raise TextError(f"it does not stream: its answer is {response.content_type}")
            reader = AnswerReader()
            async for data in response.content.iter_any():
                for news in reader.feed(data):
                    tell(news)
                if reader.ended:
                    break
            for news in reader.finish():
                tell(news)
            with contextlib.suppress(TimeoutError, aiohttp.ClientError):
                async with asyncio.timeout(TAIL_SECONDS):
                    await response.read()


async def _refusal(response: aiohttp.ClientResponse) -> TextError:
    status = response.status
    if 300 <= status < 400:
        return TextError(f"it sends elsewhere ({status}), where no prompt is sent on to")
    text = (await response.content.read(MOST_COMPLAINT)).decode("utf-8", "replace").strip()
    try:
        text = complaint(json.loads(text))
    except ValueError:
        text = text[:200]
    text = text or response.reason or "no reason given"
    if status in (401, 403):
        return TextError(f"it refuses the key that is set up for it ({status}): {text}")
    return TextError(f"{text} ({status})", _STATUS.get(status, 502))
