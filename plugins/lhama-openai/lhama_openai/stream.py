"""From the bytes of an answer to its pieces: server-sent events, sans I/O.

Read as servers write them: thoughts come as ``reasoning_content`` (llama-server, vLLM) or
``reasoning`` (vLLM, Ollama); a call in fragments or whole; errors as an event of their own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lhama.plugins.text import Call, End, Logprob, Piece, TextError

LONGEST_LINE = 32 << 20


@dataclass(slots=True)
class _Fragments:
    """A call that is being written."""

    id: str = ""
    name: str = ""
    arguments: str = ""


class AnswerReader:
    """One answer. ``ended`` once its end was given out."""

    def __init__(self) -> None:
        self.ended = False
        self._held = b""
        self._calls: dict[int, _Fragments] = {}
        self._reason = ""
        self._usage: dict[str, Any] = {}
        self._pieces = 0

    def feed(self, data: bytes) -> Iterator[Piece | End]:
        """What more bytes say. Raises ``TextError`` for an error or nonsense, after what came
        before it."""
        *lines, self._held = (self._held + data).split(b"\n")
        if len(self._held) > LONGEST_LINE:
            raise TextError("a line of the answer is too long")
        for line in lines:
            kind, _, text = line.strip().partition(b":")
            if self.ended or kind not in (b"data", b"error"):
                continue  # a comment that keeps the connection alive, an event's name
            text = text.strip()
            if text == b"[DONE]":
                yield from self.finish()
            elif text:
                yield from self._event(text, failed=kind == b"error")

    def finish(self) -> list[Piece | End]:
        """The end; no more bytes come. Raises ``TextError`` if the answer is cut."""
        if self.ended:
            return []
        if not self._reason:
            raise TextError("the answer broke off in the middle")
        self.ended = True
        details = self._usage.get("prompt_tokens_details") or {}
        end = End(
            "length" if self._reason == "length" else "stop",
            _count(self._usage.get("prompt_tokens")),
            _count(self._usage.get("completion_tokens")) or self._pieces,
            _count(details.get("cached_tokens")) if isinstance(details, dict) else 0,
        )
        return [*self._finished_calls(), end]

    def _event(self, text: bytes, *, failed: bool) -> list[Piece | End]:
        try:
            event = json.loads(text)
            if failed or "error" in event:
                raise TextError(complaint(event))
            self._usage = event.get("usage") or self._usage
            return [piece for choice in event.get("choices") or () for piece in self._read(choice)]
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            raise TextError(f"the answer is not OpenAI's: {text[:100]!r}") from error

    def _read(self, choice: dict[str, Any]) -> list[Piece]:
        delta = choice.get("delta") or {}
        content = delta.get("content") or choice.get("text") or ""
        thinking = delta.get("reasoning_content") or delta.get("reasoning") or ""
        logprobs = _logprobs(choice.get("logprobs"))
        if not (isinstance(content, str) and isinstance(thinking, str)):
            raise TypeError("text is text")
        found = []
        if content or thinking or logprobs:
            self._pieces += 1
            found.append(Piece(content, thinking, logprobs=logprobs))
        for fragment in delta.get("tool_calls") or ():
            found += self._add(fragment)
        self._reason = choice.get("finish_reason") or self._reason
        if self._reason:
            found += self._finished_calls()
        return found

    def _add(self, fragment: dict[str, Any]) -> list[Piece]:
        """Put a fragment to its call; a call is finished when the next one begins."""
        index, function = fragment.get("index") or 0, fragment.get("function") or {}
        known = self._calls.get(index)
        begins = known is None or bool(
            fragment.get("id") and known.id and fragment["id"] != known.id
        )
        found = self._finished_calls() if begins else []
        call = self._calls.setdefault(index, _Fragments())
        call.id = call.id or fragment.get("id") or ""
        call.name += function.get("name") or ""
        call.arguments += function.get("arguments") or ""
        return found

    def _finished_calls(self) -> list[Piece]:
        calls, self._calls = self._calls, {}
        found = []
        for call in calls.values():
            try:
                arguments = json.loads(call.arguments or "{}")
            except ValueError:
                arguments = None
            if not isinstance(arguments, dict):
                if self._reason == "length":
                    break  # the answer was cut in the middle of this call
                raise TextError(f"the arguments of a call of {call.name} are no JSON object")
            self._pieces += 1
            found.append(Piece(calls=(Call(call.name, arguments, call.id),)))
        return found


def complaint(event: Any) -> str:
    """An error's text, in any of the forms servers give it."""
    error = event.get("error", event) if isinstance(event, dict) else event
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail") or error
    return error if isinstance(error, str) else json.dumps(error)


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _logprobs(given: Any) -> tuple[Logprob, ...]:
    if not isinstance(given, dict) or not given.get("content"):
        return ()
    return tuple(
        Logprob(
            _bytes(one),
            float(one["logprob"]),
            tuple((_bytes(other), float(other["logprob"])) for other in one["top_logprobs"] or ()),
        )
        for one in given["content"]
    )


def _bytes(token: dict[str, Any]) -> bytes:
    return bytes(token["bytes"]) if token.get("bytes") else str(token["token"]).encode()
