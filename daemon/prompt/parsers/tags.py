"""Finds tags in text that comes in pieces."""

from __future__ import annotations

import re


class Tags:
    """Some tags, looked for together."""

    def __init__(self, *tags: str) -> None:
        begun = {tag[:length] for tag in tags for length in range(1, len(tag))}
        longest_first = sorted(begun, key=len, reverse=True)
        self._whole = re.compile("|".join(map(re.escape, tags))).search
        self._begun = re.compile(f"(?:{'|'.join(map(re.escape, longest_first))})\\Z").search
        self.reach = max(map(len, tags)) - 1
        """The longest beginning of a tag that is not all of it."""

    def find(self, text: str, start: int = 0) -> tuple[int, str]:
        """Where the first tag stands at or behind ``start``, and that tag; -1 without one."""
        whole = self._whole(text, start)
        return (whole.start(), whole.group()) if whole else (-1, "")

    def split(self, text: str) -> tuple[str, str, str]:
        """What precedes the first tag, that tag, and what follows it.

        Without a tag: what surely precedes one, nothing, and the end that may become one.
        """
        if whole := self._whole(text):
            return text[: whole.start()], whole.group(), text[whole.end() :]
        if begun := self._begun(text, max(len(text) - self.reach, 0)):
            return text[: begun.start()], "", text[begun.start() :]
        return text, "", ""
