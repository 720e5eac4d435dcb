"""``lhama run``: one question and its answer, or a conversation."""

from __future__ import annotations

import json
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from lhama.daemon.cli import answer, media, output, transferring
from lhama.daemon.cli.client import Client, Json, ServerError
from lhama.daemon.errors import BadRequest, ModelNotFound

THINK = ("true", "false", "low", "medium", "high", "max")


@dataclass(slots=True)
class RunOptions:
    """How to ask; the slash commands of a conversation change them."""

    keep_alive: str = ""
    format: str = ""
    think: bool | str | None = None
    hide_thinking: bool = False
    word_wrap: bool = True
    """At a terminal, break lines between words."""
    dimensions: int = 0
    """Of an embedding model's vector; 0: all it has."""
    truncate: bool | None = None
    """Whether a text too long for an embedding model is cut; ``None``: as the server has it."""
    verbose: bool = False
    history: bool = True

    def request(self) -> Json:
        """The fields every request carries."""
        fields: Json = {}
        if self.keep_alive:
            # The API takes a bare number for seconds, and a text only with a unit.
            number = self.keep_alive.lstrip("-").isdigit()
            fields["keep_alive"] = int(self.keep_alive) if number else self.keep_alive
        if self.format:
            fields["format"] = read_format(self.format)
        if self.think is not None:
            fields["think"] = self.think
        return fields

    def embedding(self) -> Json:
        """The fields of a request for a vector."""
        fields: Json = {"dimensions": self.dimensions} if self.dimensions else {}
        if self.truncate is not None:
            fields["truncate"] = self.truncate
        return fields

    def show(self, chunks: Generator[Json, None, None]) -> answer.Answer:
        """Print an answer as it comes."""
        return answer.show(chunks, hide_thinking=self.hide_thinking, word_wrap=self.word_wrap)


def read_think(text: str) -> bool | str | None:
    """``--think``'s value as the API takes it. Raises ``BadRequest``."""
    if not text:
        return None
    if text not in THINK:
        raise BadRequest(f"invalid think value: {text!r} (must be one of {', '.join(THINK)})")
    return text == "true" if text in ("true", "false") else text


def read_switch(text: str, name: str) -> bool | None:
    """``true`` or ``false``; ``None`` where nothing is said. Raises ``BadRequest``."""
    if text not in ("", "true", "false"):
        raise BadRequest(f"invalid {name} value: {text!r} (must be true or false)")
    return text == "true" if text else None


def read_format(text: str) -> object:
    """``json``, or a JSON Schema's text. Raises ``BadRequest``."""
    if text == "json":
        return text
    try:
        return json.loads(text)
    except ValueError:
        raise BadRequest(f"invalid format {text!r}: expected json or a JSON Schema") from None


def run(
    client: Client,
    model: str,
    words: Sequence[str],
    options: RunOptions,
    *,
    insecure: bool = False,
) -> None:
    """Answer the prompt made of piped text and ``words``; without either, converse.

    A model the server does not have is pulled first, ``insecure`` or not.
    """
    try:
        details = describe(client, model)
    except ModelNotFound:
        transferring.pull(client, model, insecure=insecure)
        details = describe(client, model)
    terminal = sys.stdin is not None and sys.stdin.isatty()
    piped = sys.stdin.read() if sys.stdin is not None and not terminal else ""
    prompt = " ".join([*([piped] if piped else []), *words])
    if "embedding" in (details.get("capabilities") or []):
        if not prompt:
            raise BadRequest(f"{model} is an embedding model: give it a text")
        body = {"model": model, "input": prompt, **options.embedding()}
        output.say(json.dumps(client.post("/api/embed", body)["embeddings"][0]))
    elif prompt or not terminal:
        ask(client, model, prompt, options, attach=media.takes(details))
    else:
        from lhama.daemon.cli.chat import Chat

        Chat(client, model, options, details).converse()


def describe(client: Client, model: str) -> Json:
    """What ``/api/show`` says. Raises ``ModelNotFound`` with the way out."""
    try:
        return client.post("/api/show", {"model": model})
    except ServerError as error:
        if error.status != 404:
            raise
        raise ModelNotFound(
            f"{error.message}: 'lhama list' shows what there is, 'lhama pull {model}' fetches it, "
            f"'lhama import {model} FILE.gguf' makes it from a file"
        ) from None


def ask(
    client: Client, model: str, prompt: str, options: RunOptions, *, attach: bool = False
) -> None:
    """One prompt through ``/api/generate``; the answer goes to standard output.

    ``attach``: files that the prompt names are shown to the model.
    """
    body: Json = {"model": model, "prompt": prompt, **options.request()}
    if attach:
        body["prompt"], body["images"] = media.extract(prompt)
    said = options.show(client.stream("/api/generate", body))
    if said.stopped:
        raise KeyboardInterrupt
    if options.verbose:
        output.note("\n" + answer.statistics(said.final))
