"""Anthropic's routes: requests are translated, the core answers in Anthropic's form."""

from __future__ import annotations

from aiohttp import web

from lhama.daemon.protocol.anthropic import reading
from lhama.daemon.protocol.anthropic.answer import MessagesAnswer
from lhama.daemon.protocol.anthropic.requests import MessagesRequest
from lhama.daemon.web.body import read_json
from lhama.daemon.web.inference import answer_chat, count_prompt
from lhama.daemon.web.replies import BARE_JSON, json_reply


async def messages(request: web.Request) -> web.StreamResponse:
    asked = await read_json(request, MessagesRequest, empty="EOF")
    core = reading.chat(asked)
    return await answer_chat(request, core, MessagesAnswer(asked), relax_thinking=True)


async def count_tokens(request: web.Request) -> web.Response:
    """The tokens of a prompt, counted by the model's own tokenizer. Ollama does not have this."""
    asked = await read_json(request, MessagesRequest, empty="EOF")
    counted = await count_prompt(request, reading.conversation(asked))
    return json_reply({"input_tokens": counted}, content_type=BARE_JSON)
