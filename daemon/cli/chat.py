"""A conversation at the terminal: reads lines, keeps the messages, prints the answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lhama.daemon.cli import answer, media, output
from lhama.daemon.cli.client import Client, Json, ServerError
from lhama.daemon.cli.running import RunOptions, describe
from lhama.daemon.errors import LhamaError

PROMPT, MORE = ">>> ", "... "
QUOTES = '"""'


class Chat:
    """One conversation with one model; the slash commands change it."""

    def __init__(self, client: Client, model: str, options: RunOptions, details: Json) -> None:
        self.client = client
        self.model = model
        self.options = options
        self.details = details
        """What ``/api/show`` says of the model."""
        self.messages: list[Json] = []
        self.system = ""
        self.parameters: dict[str, Any] = {}

    def load(self, model: str = "") -> None:
        """Get the model ready; another one if named. The conversation stays."""
        if model:
            self.details, self.model = describe(self.client, model), model
        body = {"model": self.model, **self.options.request(), "stream": False}
        with output.Waiting(f"loading {self.model}"):
            self.client.post("/api/generate", body)
        for message in self.details.get("messages") or []:
            mark = PROMPT if message["role"] == "user" else ""
            output.say(f"{mark}{message.get('content', '')}\n")

    def converse(self, read: Callable[[str], str] = input) -> None:
        """Read and answer until the input ends or ``/bye``."""
        from lhama.daemon.cli import history, slash

        with history.remembered(lambda: self.options.history):
            self.load()
            while True:
                try:
                    text = read_message(read)
                except EOFError:
                    output.say()
                    return
                except KeyboardInterrupt:
                    output.say("\nUse Ctrl + d or /bye to exit.")
                    continue
                try:
                    if slash.is_command(text):
                        if not slash.execute(self, text):
                            return
                    elif text.strip():
                        self.say(text)
                except LhamaError as error:
                    output.say(f"Error: {error.message}\n")

    def say(self, text: str) -> None:
        """Send the user's message and print the answer; a failed one leaves no trace."""
        message: Json = {"role": "user", "content": text}
        if media.takes(self.details):
            message["content"], images = media.extract(text)
            message |= {"images": images} if images else {}
        self.messages.append(message)
        system = [{"role": "system", "content": self.system}] if self.system else []
        body = {
            "model": self.model,
            "messages": system + self.messages,
            "options": self.parameters,
            **self.options.request(),
        }
        try:
            chunks = self.client.stream("/api/chat", body)
            said = self.options.show(chunks)
        except ServerError:
            self.messages.pop()
            raise
        reply = {"role": "assistant", "content": said.content}
        self.messages.append(reply | ({"thinking": said.thinking} if said.thinking else {}))
        output.say()
        if self.options.verbose and said.final.get("done"):
            output.say(answer.statistics(said.final) + "\n")


def read_message(read: Callable[[str], str]) -> str:
    """One message: a line, or all lines between triple quotes. Raises ``EOFError``."""
    line = read(PROMPT)
    if not line.lstrip().startswith(QUOTES):
        return line
    text = line.lstrip().removeprefix(QUOTES)
    while not text.rstrip().endswith(QUOTES):
        text += "\n" + read(MORE)
    return text.rstrip().removesuffix(QUOTES)
