"""The response object and its items, as dicts in Ollama's field order.

Ollama encodes a body from structs and events from maps, whose keys Go sorts: the same values,
encoded in order or sorted.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec

from lhama.daemon.protocol import goencode
from lhama.daemon.protocol.openai.responses.requests import ResponsesRequest, Tool
from lhama.daemon.wire import messages as wire

Json = dict[str, Any]


def response(
    request: ResponsesRequest,
    response_id: str,
    status: str,
    output: list[Json],
    done: wire.Done | None = None,
    *,
    error: Json | None = None,
    nulls: bool = False,
) -> Json:
    """The response object. ``nulls``, in streams: an effort or summary that was not given shows as
    null, and a namespace without its tools."""
    now = int(time.time())
    return {
        "id": response_id,
        "object": "response",
        "created_at": now,
        "completed_at": now if status == "completed" else None,
        "status": status,
        "incomplete_details": None,
        "model": request.model,
        "previous_response_id": None,
        "instructions": request.instructions or None,
        "output": output,
        "error": error,
        "tools": [_tool(tool, deep=not nulls) for tool in request.tools],
        "tool_choice": "auto",
        "truncation": "disabled" if request.truncation is None else request.truncation,
        "parallel_tool_calls": True,
        "text": {"format": _format(request)},
        "top_p": 1 if request.top_p is None else request.top_p,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "top_logprobs": 0,
        "temperature": 1 if request.temperature is None else request.temperature,
        "reasoning": _reasoning(request, nulls),
        "usage": done and _usage(done),
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": None,
        "store": False,
        "background": request.background,
        "service_tier": "default",
        "metadata": {},
        "safety_identifier": None,
        "prompt_cache_key": None,
    }


def message(item_id: str, text: str | None, status: str = "completed") -> Json:
    """``text`` is ``None`` where there is no part yet."""
    return {
        "id": item_id,
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": [] if text is None else [text_part(text)],
    }


def text_part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def reasoning(item_id: str, thoughts: str) -> Json:
    """Thoughts are neither summed up nor encrypted: clients send them back as they are."""
    return {
        "id": item_id,
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": thoughts}],
        "encrypted_content": thoughts,
    }


def function_call(item_id: str, call: wire.ToolCall, arguments: str, status: str) -> Json:
    return {
        "id": item_id,
        "type": "function_call",
        "status": status,
        "call_id": call.id,
        "name": call.name,
        "arguments": arguments,
    }


def _usage(done: wire.Done) -> Json:
    usage: Json = {
        "input_tokens": done.prompt_tokens,
        "output_tokens": done.eval_tokens,
        "total_tokens": done.prompt_tokens + done.eval_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    return usage | ({"truncated_tokens": cut} if (cut := done.truncated_tokens) else {})


def _tool(tool: Tool, *, deep: bool) -> Json:
    parameters = tool.parameters
    shown: Json = {
        "type": tool.type,
        "name": tool.name,
        "description": tool.description,
        "strict": tool.strict,
        "parameters": None if parameters is None else msgspec.Raw(goencode.encode_any(parameters)),
    }
    return shown | (
        {"tools": [_tool(t, deep=True) for t in tool.tools]} if deep and tool.tools else {}
    )


def _format(request: ResponsesRequest) -> Json:
    form = request.text.format if request.text else None
    if form is None:
        return {"type": "text"}
    shown: Json = {"type": form.type}
    if form.name:
        shown["name"] = form.name
    if bytes(form.schema) not in (b"", b"null"):
        shown["schema"] = msgspec.Raw(msgspec.json.format(bytes(form.schema), indent=-1))
    if form.strict is not None:
        shown["strict"] = form.strict
    return shown


def _reasoning(request: ResponsesRequest, nulls: bool) -> Json | None:
    asked = {"effort": request.reasoning.effort, "summary": request.reasoning.summary}
    given = {name: value for name, value in asked.items() if value}
    if not given:
        return None
    return {name: value or None for name, value in asked.items()} if nulls else given
