"""All text is content."""

from __future__ import annotations

from lhama.daemon.prompt.parsers.parser import Parsed, Parser


class Passthrough(Parser):
    tools = False
    thinking = False

    def feed(self, text: str) -> Parsed:
        return Parsed(text)

    def finish(self) -> Parsed:
        return Parsed()

    def skip_thinking(self) -> None:
        """There is none."""
