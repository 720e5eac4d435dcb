"""From tokens to what the client sees: text, stop strings, thinking and tool calls, logprobs."""

from __future__ import annotations

from collections.abc import Sequence

from lhama.daemon.prompt.output import OutputParser
from lhama.daemon.runner.detokenizer import Detokenizer
from lhama.daemon.runner.repetition import Repetition
from lhama.daemon.runner.stop import StopMatcher
from lhama.daemon.wire.messages import Delta, TokenLogprob, ToolCall
from lhama.plugins.backend import RowResult, Tokenizer


class Answer:
    """One request's output. Runs while the device computes the next step."""

    def __init__(
        self,
        request_id: int,
        tokenizer: Tokenizer,
        stops: Sequence[str],
        parser: OutputParser,
        prompt: str | None = None,
        truncated_tokens: int = 0,
        visible: frozenset[int] = frozenset(),
    ) -> None:
        """``prompt``: its text, if the tokens of prompt and answer together shall be reported
        (generate's deprecated ``context``). ``truncated_tokens``: what was cut of it.
        ``visible``: special tokens that the parser must see."""
        self.id = request_id
        self.truncated_tokens = truncated_tokens
        self._untold = truncated_tokens
        self._tokenizer = tokenizer
        self._text = Detokenizer()
        self._stop = StopMatcher(stops)
        self._repetition = Repetition()
        self._end = ""
        self._parser = parser
        self._visible = visible
        self._logprobs: list[TokenLogprob] = []
        self._transcript = None if prompt is None else [prompt]

    def ended(self) -> str:
        """Why the text has ended, if it has: ``stop`` at a stop string, ``length`` at one
        repetition too many. What follows is not the client's."""
        return self._end

    def feed(self, row: RowResult) -> Delta | None:
        """Add one token; ``None`` while there is nothing to send."""
        if row.logprob is not None:
            self._logprobs.append(self._logprob(row, row.logprob))
        special = row.token in self._visible
        text = self._text.feed(self._tokenizer.piece(row.token, special=special))
        sent = self._stop.feed(text) if text else ""
        if self._stop.matched:
            self._end = "stop"
        elif self._repetition.feed(sent):
            self._end, sent = "length", ""
        if not sent and not self._logprobs:
            return None
        self._note(sent)
        parsed = self._parser.feed(sent)
        return self._delta(parsed.content, parsed.thinking, parsed.tool_calls)

    def flush(self) -> Delta | None:
        """Send what was held back: no more tokens come."""
        held = ""
        if not self._end and (rest := self._text.finish()):
            held = self._stop.feed(rest)
        held += self._stop.finish()
        self._note(held)
        parsed = self._parser.feed(held)
        last = self._parser.finish()
        return self._delta(
            parsed.content + last.content,
            parsed.thinking + last.thinking,
            [*parsed.tool_calls, *last.tool_calls],
        )

    def context(self) -> list[int]:
        """Tokens of prompt and answer, if they were asked for: of the text, as Ollama has it, not
        the tokens drawn. No BOS is added."""
        if self._transcript is None:
            return []
        text = "".join(self._transcript)
        return self._tokenizer.encode(text, add_special=False, parse_special=True)

    def _note(self, text: str) -> None:
        if self._transcript is not None:
            self._transcript.append(text)

    def _delta(self, content: str, thinking: str, tool_calls: list[ToolCall]) -> Delta | None:
        if not (content or thinking or tool_calls or self._logprobs):
            return None
        logprobs, self._logprobs = self._logprobs, []
        truncated, self._untold = self._untold, 0
        return Delta(self.id, content, thinking, tool_calls, logprobs, truncated_tokens=truncated)

    def _logprob(self, row: RowResult, logprob: float) -> TokenLogprob:
        piece = self._tokenizer.piece
        return TokenLogprob(
            piece(row.token, special=True),
            logprob,
            [(piece(token, special=True), value) for token, value in row.top],
        )


def add(said: list[Delta], delta: Delta) -> None:
    """Add to a step's deltas of one request: joined to those before it, but for the end, which
    carries what only it brought to light."""
    if said and delta.done is None:
        said[-1] = join(said[-1], delta)
    else:
        said.append(delta)


def join(first: Delta, second: Delta) -> Delta:
    """Two deltas of one request as one."""
    return Delta(
        first.id,
        first.content + second.content,
        first.thinking + second.thinking,
        [*first.tool_calls, *second.tool_calls],
        [*first.logprobs, *second.logprobs],
        second.done,
        first.truncated_tokens,
    )
