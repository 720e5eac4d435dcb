"""Answers the daemon for a model that runs elsewhere: what a request asks, handed on as it is."""

from __future__ import annotations

from lhama.daemon.errors import LhamaError, RunnerFailed
from lhama.daemon.runner.failure import failure
from lhama.daemon.runner.service import NO_EMBEDDINGS, NO_RANKING, Sender, control
from lhama.daemon.runner.textline import TextLine, TextQuestion
from lhama.daemon.wire.messages import Embed, Generate, Message, Prompt, Rank, Render, ToRunner
from lhama.plugins.text import Call, Question, Turn

ELSEWHERE = "the prompt of this model is made where it runs: "
NO_TEMPLATE = ELSEWHERE + "it takes neither a template nor a suffix"
NO_CONTEXT = ELSEWHERE + "it takes no context of tokens"
NO_RENDERING = ELSEWHERE + "it is neither shown nor counted here"


class TextService:
    """The requests of one model that runs elsewhere."""

    def __init__(self, line: TextLine, send: Sender) -> None:
        self._line = line
        self._send = send

    def handle(self, message: ToRunner) -> None:
        """Hand a request to the line, or say why not."""
        match message:
            case Generate(id=request_id):
                try:
                    self._line.inbox.put(TextQuestion(request_id, question(message)))
                except LhamaError as error:
                    self._send(failure(request_id, error))
            case Render(id=request_id):
                self._refuse(request_id, NO_RENDERING)
            case Embed(id=request_id):
                self._refuse(request_id, NO_EMBEDDINGS)
            case Rank(id=request_id):
                self._refuse(request_id, NO_RANKING)
            case _:
                control(message, self._line, self._send)

    def _refuse(self, request_id: int, text: str) -> None:
        self._send(failure(request_id, RunnerFailed(text, status=501)))


def question(request: Generate) -> Question:
    """The request as a text engine gets it. Raises ``RunnerFailed`` for what only a model that is
    here could do."""
    prompt = request.prompt
    if prompt.fill:
        raise RunnerFailed(NO_TEMPLATE, status=400)
    if prompt.context:
        raise RunnerFailed(NO_CONTEXT, status=400)
    return Question(
        turns=() if prompt.raw is not None else tuple(map(_turn, _messages(prompt))),
        text=prompt.raw or "",
        tools=tuple(prompt.tools),
        sampling=request.sampling,
        stop=tuple(request.stop),
        most_tokens=request.num_predict,
        think=False if prompt.answering and prompt.think is not None else prompt.think,
        grammar=request.grammar,
        logprobs=request.logprobs,
    )


def _messages(prompt: Prompt) -> list[Message]:
    """Without the thoughts of a first pass: no API lets an answer begin with them."""
    last = prompt.messages[-1:]
    begun = prompt.answering and last and last[0].role == "assistant" and not last[0].content
    return prompt.messages[:-1] if begun and last[0].thinking else prompt.messages


def _turn(message: Message) -> Turn:
    return Turn(
        message.role,
        message.content,
        message.thinking,
        tuple(message.images),
        tuple(Call(call.name, call.arguments, call.id) for call in message.tool_calls),
        message.tool_name,
        message.tool_call_id,
    )
