"""The aiohttp application: the table of routes behind the gate."""

from __future__ import annotations

from aiohttp import web

from lhama.daemon.web import (
    anthropic,
    embeddings,
    general,
    health,
    inference,
    library,
    observing,
    openai,
    page,
    rerank,
    transfer,
)
from lhama.daemon.web.dialects import ANTHROPIC, OPENAI
from lhama.daemon.web.middleware import Gate, on_prepare
from lhama.daemon.web.routes import Table
from lhama.daemon.web.service import SERVICE, Service


def build(service: Service) -> web.Application:
    """An application that serves ``service``; it starts and stops nothing of it."""
    # The limit on bodies is the handlers' own: aiohttp would answer in plain text.
    app = web.Application(client_max_size=0)
    app[SERVICE] = service
    app.on_response_prepare.append(on_prepare)
    app.router.add_route("*", "/{path:.*}", Gate(service, routes()).handle)
    return app


def routes() -> Table:
    """Every route: Ollama's own, OpenAI's and Anthropic's, and lhama's."""
    table = Table()
    table.add("GET HEAD", "/", general.root)
    table.add("GET HEAD", page.PATH, page.show)
    table.add("GET HEAD", "/health", health.ready)
    table.add("GET HEAD", "/health/live", health.live)
    table.add("GET HEAD", "/health/ready", health.ready)
    table.add("GET HEAD", "/api/version", general.version)
    table.add("GET", "/api/status", general.status)
    table.add("GET HEAD", "/api/tags", library.tags)
    table.add("GET", "/api/ps", library.ps)
    table.add("POST", "/api/show", library.show)
    table.add("POST", "/api/generate", inference.generate)
    table.add("POST", "/api/chat", inference.chat)
    table.add("POST", "/api/embed", embeddings.embed)
    table.add("POST", "/api/embeddings", embeddings.embeddings)
    table.add("POST", "/api/rerank", rerank.rerank)
    table.add("POST", "/api/create", transfer.create)
    table.add("POST", "/api/copy", library.copy)
    table.add("DELETE", "/api/delete", library.delete)
    table.add("HEAD", "/api/blobs/:digest", transfer.blob_exists)
    table.add("POST", "/api/blobs/:digest", transfer.blob_upload)
    table.add("POST", "/api/pull", transfer.pull)
    table.add("POST", "/api/push", transfer.push)
    table.add("POST", "/api/me", general.me)
    table.add("POST", "/api/signout", general.sign_out)
    table.add("DELETE", "/api/user/keys/:key", general.sign_out)
    table.add("POST", "/api/experimental/web_search", general.web_search)
    table.add("POST", "/api/experimental/web_fetch", general.web_fetch)
    table.add("GET", "/api/experimental/model-recommendations", general.recommendations)
    table.add("GET", "/api/lhama/pipelines", observing.pipelines)
    table.add("GET", "/api/lhama/backends", observing.backends)
    table.add("POST", "/api/lhama/pipeline", observing.arrange)
    table.add("GET", "/metrics", observing.show_metrics)
    table.add("GET", "/v1/models", openai.models, OPENAI)
    table.add("GET", "/v1/models/:model", openai.model, OPENAI)
    table.add("POST", "/v1/chat/completions", openai.chat_completions, OPENAI)
    table.add("POST", "/v1/completions", openai.completions, OPENAI)
    table.add("POST", "/v1/embeddings", openai.embeddings, OPENAI)
    table.add("POST", "/v1/rerank", openai.rerank, OPENAI)
    table.add("POST", "/v1/responses", openai.responses, OPENAI)
    table.add("POST", "/v1/audio/transcriptions", openai.transcriptions, OPENAI)
    table.add("POST", "/v1/messages", anthropic.messages, ANTHROPIC)
    table.add("POST", "/v1/messages/count_tokens", anthropic.count_tokens, ANTHROPIC)
    return table
