"""Glimmer: messages with recipients, calls in XML of its own (ATEM)."""

from __future__ import annotations

import re
from typing import Any

from lhama.daemon.durations import quote
from lhama.daemon.prompt.gotext import SPACE
from lhama.daemon.prompt.parsers import typed
from lhama.daemon.prompt.parsers.machine import Machine
from lhama.daemon.prompt.parsers.parser import ParseError, Request
from lhama.daemon.prompt.parsers.tags import Tags
from lhama.daemon.prompt.tools import Tool

_ASSISTANT = "<|start|>assistant"
_MESSAGE, _MESSAGE_END, _TURN_END = "<|message|>", "<|eom|>", "<|eot|>"
_CALLS, _CALLS_END = "<atem:function_calls>", "</atem:function_calls>"
_INVOKE, _INVOKE_END = '<atem:invoke name="', "</atem:invoke>"
_PARAMETER, _PARAMETER_END = '<atem:parameter name="', "</atem:parameter>"
_NAME_END = '">'
_IN_HEADER, _IN_CALL = Tags(_MESSAGE), Tags(_CALLS_END)
# The model echoes its header's end in the name, or writes it in place of the name's end.
_NAME = re.compile(rf"(.*?)(?:{_NAME_END}|{re.escape(_MESSAGE)}(?={_PARAMETER}))", re.DOTALL)


class Glimmer(Machine):
    """A message is thinking, a call or content by its recipient. A message may also end where the
    header of the next one begins."""

    tags = ("<|start|>", _MESSAGE, _MESSAGE_END, _TURN_END)

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self._thinks = request.think is None or bool(request.think)
        self._tools = {tool.name.strip(SPACE): tool for tool in request.tools if tool.name}
        recipients = ("", *(f" to={name}" for name in ("self", "user", *self._tools)))
        self._headers = [f"{_ASSISTANT}{recipient}{_MESSAGE}" for recipient in recipients]
        self._ends = Tags(_MESSAGE_END, _TURN_END, *self._headers)
        self._recipient = ""
        self._streamed = False
        """Some of the message was content already: the rest is, too."""
        self._state = self._in_header

    def skip_thinking(self) -> None:
        self._begin("user")

    def _in_header(self) -> bool:
        if self._held.startswith(_ASSISTANT):
            self._held = self._held[len(_ASSISTANT) :]
        elif _ASSISTANT.startswith(self._held) and not self._at_end:
            return False
        header, tag = self._upto(_IN_HEADER)
        if tag:
            self._begin(header.strip(SPACE).removeprefix("to=").strip(SPACE))
            return True
        if self._at_end:
            self._content += self._rest()
        return False

    def _begin(self, recipient: str) -> None:
        self._recipient = recipient
        self._streamed = False
        if recipient == "self":
            self._go(self._in_thinking)
        else:
            self._go(self._in_call if self._resolved(recipient) else self._in_content)

    def _in_thinking(self) -> bool:
        text, complete = self._body()
        self._thinking += text if self._thinks else ""
        return complete and self._next()

    def _in_content(self) -> bool:
        """Content, unless it begins as a call does and is one: recipients get lost."""
        start = self._held.lstrip(" \t\r\n")
        if (
            self._tools
            and not self._streamed
            and (start.startswith(_CALLS) or _CALLS.startswith(start))
        ):
            text, complete = self._whole_call()
            if not complete:
                return False
            if not self._recovered(text):
                self._content += text
            return self._next()
        text, complete = self._body()
        self._content += text
        self._streamed = self._streamed or bool(text)
        return complete and self._next()

    def _in_call(self) -> bool:
        text, complete = self._whole_call()
        if not complete:
            return False
        name = self._resolved(self._recipient)
        assert name is not None, "only a tool's message gets here"
        try:
            invoked, arguments = _invocation(text, self._tools[name])
        except ParseError as error:
            problem = f"parse Glimmer call to {self._recipient}: {error.message}"
            raise ParseError(problem) from None
        if self._resolved(invoked) != name:
            raise ParseError(
                f"Glimmer recipient {quote(self._recipient)} does not match ATEM invoke {quote(invoked)}"
            )
        self._calls.append(self.call(name, arguments))
        return self._next()

    def _next(self) -> bool:
        self._go(self._in_header)
        return True

    def _body(self) -> tuple[str, bool]:
        """Take off text of the message; whether that is all of it."""
        text, tag = self._text(self._ends, trim=False)
        self._put_back(tag)
        return text, bool(tag)

    def _whole_call(self) -> tuple[str, bool]:
        """Take off the message, if it is complete; ends of messages inside the call are not."""
        place, tag = _IN_CALL.find(self._held, self._searched)
        if not tag and not self._at_end:
            self._searched = max(0, len(self._held) - _IN_CALL.reach)
            return "", False
        self._searched = place if tag else len(self._held)
        end, tag = self._ends.find(self._held, self._searched + len(tag))
        if not tag and not self._at_end:
            return "", False
        if not tag:
            return self._rest(), True
        text, self._held = self._held[:end], self._held[end + len(tag) :]
        self._put_back(tag)
        return text, True

    def _put_back(self, tag: str) -> None:
        if tag in self._headers:
            self._held = tag + self._held

    def finish(self) -> Any:
        """A call that was addressed and never written is an error."""
        if self._state == self._in_call and not self._held:
            self._at_end = True
            self._in_call()
        return super().finish()

    def _recovered(self, text: str) -> bool:
        """Whether the text is a call of a declared tool, which is then added."""
        for tool in self._tools.values():
            try:
                name, arguments = _invocation(text, tool)
            except ParseError:
                return False
            if self._resolved(name) == tool.name.strip(SPACE):
                self._calls.append(self.call(tool.name.strip(SPACE), arguments))
                return True
        return False

    def _resolved(self, name: str) -> str | None:
        """The declared tool that ``name`` means: ``read.read`` is ``read``, whose namespace the
        prompt gave out under its own name."""
        if name in self._tools:
            return name
        namespace, dot, function = name.partition(".")
        own = function.partition(".")[0] == namespace
        return function if dot and own and function in self._tools else None


def _invocation(text: str, tool: Tool) -> tuple[str, dict[str, Any]]:
    """Name and arguments of a call. Raises ``ParseError``."""
    text = text.strip(SPACE)
    if not (text.startswith(_CALLS) and text.endswith(_CALLS_END)):
        raise ParseError("missing ATEM function_calls wrapper")
    text = text[len(_CALLS) : -len(_CALLS_END)].strip(SPACE)
    if not (text.startswith(_INVOKE) and text.endswith(_INVOKE_END)):
        raise ParseError("missing ATEM invoke wrapper")
    text = text[len(_INVOKE) :]
    name = _NAME.match(text)
    if name is None or len(text) - name.end() < len(_INVOKE_END):
        raise ParseError("malformed ATEM invoke name")
    parameters = text[name.end() : -len(_INVOKE_END)].removeprefix("\n").removesuffix("\n")
    return name.group(1).replace(_MESSAGE, ""), _parameters(parameters, tool)


def _parameters(text: str, tool: Tool) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    while text:
        if not text.startswith(_PARAMETER):
            raise ParseError("malformed ATEM parameter")
        name, named, text = text[len(_PARAMETER) :].partition(_NAME_END)
        if not named:
            raise ParseError("malformed ATEM parameter name")
        value, closed, text = text.partition(_PARAMETER_END)
        if not closed:
            raise ParseError(f"unterminated ATEM parameter {quote(name)}")
        arguments[name] = typed.from_text(value, tool.types(name))
        text = text.removeprefix("\n")
    return arguments
