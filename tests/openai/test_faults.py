"""The engine against a server that fails in every way a network has."""

from __future__ import annotations

import asyncio
import json
import queue
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from lhama_openai.engine import OpenAIEngine
from lhama_openai.settings import Server

from lhama.plugins.text import Cancel, End, Piece, Question, TextEngine, TextError, Turn

QUESTION = Question((Turn("user", "hello"),))
HELLO = b'data: {"choices": [{"index": 0, "delta": {"content": "hell\xc3\xb6"}}]}\n\n'
STOP = b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[Handler], Awaitable[str]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts a server that answers every request by a handler; returns its address."""
    servers: list[TestServer] = []

    async def start(handler: Handler) -> str:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", handler)
        server = TestServer(app, handler_cancellation=True)
        await server.start_server()
        servers.append(server)
        return str(server.make_url("/v1"))

    yield start
    for server in servers:
        await server.close()


@contextmanager
def engine(url: str, key: str = "sesame", timeout: float = 30) -> Iterator[OpenAIEngine]:
    engine = OpenAIEngine(Server("gpu", url, key, timeout=timeout), "m", 4096)
    assert isinstance(engine, TextEngine)
    try:
        yield engine
    finally:
        engine.close()


class Heard:
    """What an engine tells of one answer."""

    def __init__(self, engine: OpenAIEngine, question: Question = QUESTION) -> None:
        self._news: queue.SimpleQueue[Piece | End | TextError] = queue.SimpleQueue()
        self.cancel: Cancel = engine.start(question, self._news.put)

    async def next(self) -> Piece | End | TextError:
        return await asyncio.to_thread(self._news.get, timeout=60)

    async def all(self) -> list[Piece | End | TextError]:
        found = [await self.next()]
        while isinstance(found[-1], Piece):
            found.append(await self.next())
        return found


async def streamed(request: web.Request, *parts: bytes) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for part in parts:
        await response.write(part)
        await asyncio.sleep(0)
    return response


async def test_an_answer(serve: Serve) -> None:
    """However the bytes are cut, in the middle of a character as well."""
    seen: list[web.Request] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append(request)
        whole = HELLO + STOP + DONE
        return await streamed(request, *(whole[n : n + 1] for n in range(len(whole))))

    with engine(await serve(answer)) as asked:
        assert await Heard(asked).all() == [Piece("hellö"), End("stop", 0, 1)]
    assert seen[0].headers["Authorization"] == "Bearer sesame"


@pytest.mark.parametrize(
    ("status", "body", "told", "said"),
    [
        (400, json.dumps({"error": {"message": "too long"}}), 400, r"gpu: too long \(400\)"),
        (401, json.dumps({"error": {"message": "who?"}}), 502, r"refuses the key .*\(401\): who\?"),
        (404, json.dumps({"detail": "no such model"}), 502, r"gpu: no such model \(404\)"),
        (429, json.dumps({"message": "slow down"}), 429, "slow down"),
        (500, "<html>oh</html>", 502, r"<html>oh</html> \(500\)"),
        (503, "", 503, "Service Unavailable"),
    ],
)
async def test_refusals_are_told_in_their_words(
    serve: Serve, status: int, body: str, told: int, said: str
) -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=body)

    with engine(await serve(refuse)) as asked:
        [error] = await Heard(asked).all()
    assert isinstance(error, TextError)
    assert error.status == told
    with pytest.raises(TextError, match=said):
        raise error
    assert "sesame" not in str(error)


async def test_a_redirect_leads_neither_prompt_nor_key_away(serve: Serve) -> None:
    led: list[web.Request] = []

    async def elsewhere(request: web.Request) -> web.StreamResponse:
        led.append(request)
        return await streamed(request, HELLO, STOP, DONE)

    url = await serve(elsewhere)

    async def redirect(request: web.Request) -> web.StreamResponse:
        raise web.HTTPTemporaryRedirect(f"{url}/chat/completions")

    with engine(await serve(redirect)) as asked:
        [error] = await Heard(asked).all()
    assert "sends elsewhere (307)" in str(error)
    assert led == []


async def test_an_answer_that_breaks_off(serve: Serve) -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        response = await streamed(request, HELLO)
        assert request.transport is not None
        request.transport.abort()
        return response

    with engine(await serve(cut)) as asked:
        piece, error = await Heard(asked).all()
    assert piece == Piece("hellö")
    assert "broke off" in str(error)


async def test_an_answer_that_ends_too_early(serve: Serve) -> None:
    async def short(request: web.Request) -> web.StreamResponse:
        return await streamed(request, HELLO)

    with engine(await serve(short)) as asked:
        _, error = await Heard(asked).all()
    assert "broke off in the middle" in str(error)


async def test_an_error_within_an_answer(serve: Serve) -> None:
    async def broken(request: web.Request) -> web.StreamResponse:
        error = b'data: {"error": {"message": "CUDA error", "code": 500}}\n\n'
        return await streamed(request, HELLO, error)

    with engine(await serve(broken)) as asked:
        piece, error = await Heard(asked).all()
    assert piece == Piece("hellö")
    assert str(error) == "gpu: CUDA error"


async def test_a_server_that_does_not_stream(serve: Serve) -> None:
    async def whole(request: web.Request) -> web.StreamResponse:
        return web.json_response({"choices": [{"message": {"content": "hello"}}]})

    with engine(await serve(whole)) as asked:
        [error] = await Heard(asked).all()
    assert "does not stream" in str(error)


async def test_silence_is_given_up(serve: Serve) -> None:
    async def silent(request: web.Request) -> web.StreamResponse:
        response = await streamed(request, HELLO)
        await asyncio.Event().wait()
        return response

    with engine(await serve(silent), timeout=0.2) as asked:
        _, error = await Heard(asked).all()
    assert isinstance(error, TextError)
    assert (error.status, str(error)) == (504, "gpu: no answer within 0.2 s")


async def test_nobody_there(unused_tcp_port: int) -> None:
    with engine(f"http://127.0.0.1:{unused_tcp_port}/v1") as asked:
        [error] = await Heard(asked).all()
    assert "cannot be reached" in str(error)


async def test_a_cancelled_answer_hangs_up_and_others_go_on(serve: Serve) -> None:
    gone, asked_for = asyncio.Event(), asyncio.Event()
    first = True

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal first
        slow, first = first, False
        response = await streamed(request, HELLO)
        try:
            if slow:
                asked_for.set()
                await asyncio.Event().wait()
            for part in (STOP, DONE):
                await response.write(part)
        except asyncio.CancelledError:
            gone.set()
            raise
        return response

    with engine(await serve(answer)) as asked:
        slow = Heard(asked)
        await asked_for.wait()
        assert await Heard(asked).all() == [Piece("hellö"), End("stop", 0, 1)]
        slow.cancel()
        slow.cancel()
        await asyncio.wait_for(gone.wait(), 60)


async def test_many_answers_at_once(serve: Serve) -> None:
    together = 0
    all_there = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal together
        together += 1
        if together == 20:
            all_there.set()
        await all_there.wait()
        return await streamed(request, HELLO, STOP, DONE)

    with engine(await serve(answer)) as asked:
        heard = [Heard(asked) for _ in range(20)]
        for one in heard:
            assert await one.all() == [Piece("hellö"), End("stop", 0, 1)]
