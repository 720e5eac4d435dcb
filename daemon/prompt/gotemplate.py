"""Runs Go templates, within budgets.

gotpl counts output, iterations and depth, but not time: a body of a hundred ``{{ if true }}`` in
a range of 100,000 held it for 38 s. So every range body and every definition calls a function
that looks at the clock.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import gotpl
from gotpl.parse import nodes as ast

from lhama.daemon.errors import LhamaError
from lhama.daemon.prompt import goparse
from lhama.daemon.prompt.gofunctions import (
    FUNCTIONS,
    MAX_OUTPUT_CHARS,
    TICK,
    RenderBudgetError,
    spent,
    start_meter,
)

_ACTION_END = re.compile(rb"\s*(-?)\}\}")
_DEFINE = re.compile(rb"""\{\{(?:-\s)?\s*define\s+(?:"(?:[^"\\]|\\.)*"|`[^`]*`)""")
_BUDGET = gotpl.ExecutionBudget(
    max_output_chars=MAX_OUTPUT_CHARS, max_iterations=1_000_000, max_template_depth=64
)
_SANDBOX = gotpl.SandboxPolicy.strict(
    allow_custom_lookup=True,
    allow_functions=FUNCTIONS,
    max_template_chars=2 * goparse.MAX_TEMPLATE_BYTES,
    default_budget=_BUDGET,
)
_LOCATION = re.compile(r"template: .*?: executing \".*?\": ")


class GoTemplate:
    """A compiled template. ``execute`` may be called from any thread."""

    def __init__(self, text: str) -> None:
        if goparse.identifiers(text).isdisjoint({"messages", "response"}):
            text += "{{ .Response }}"
        self.text = text
        self._whole = _compile(text)
        self._last: gotpl.Template | None = None

    def execute(self, values: dict[str, Any]) -> str:
        """The text for ``values``. Raises ``LhamaError`` if the template fails or never ends."""
        return _run(self._whole, values)

    def execute_last(self, values: dict[str, Any]) -> str:
        """As ``execute``, but the text ends after ``.Response``: what follows it in the template
        follows the answer (legacy templates)."""
        if self._last is None:
            self._last = _compile(_cut_after_response(self.text))
        return _run(self._last, values)


@lru_cache(maxsize=64)
def compile_template(text: str) -> GoTemplate:
    """The compiled ``text``. Raises ``goparse.TemplateTextError``."""
    return GoTemplate(text)


def _compile(text: str) -> gotpl.Template:
    goparse.parse(text)
    # missingkey=zero, as Ollama sets it.
    return gotpl.Template(
        _with_ticks(text), functions=FUNCTIONS, sandbox=_SANDBOX, missing_key="zero"
    )


def _run(template: gotpl.Template, values: dict[str, Any]) -> str:
    start_meter()
    try:
        text: str = template.render(values)
    except gotpl.BudgetExceededError as error:
        reason = _LOCATION.sub("", str(error))
        raise RenderBudgetError(f"chat template stopped: {reason}") from None
    except gotpl.TemplateError as error:
        raise spent() or LhamaError(f"template error: {_LOCATION.sub('', str(error))}") from None
    except (RecursionError, ValueError, OverflowError) as error:
        raise LhamaError(f"template error: {error}") from None
    return text


def _with_ticks(text: str) -> str:
    """``text`` with a call of ``TICK`` at the start of each range body and definition.

    The call takes over the ``-`` of the action before it, so that no white space changes.
    """
    source = text.encode()
    loops = [
        node
        for tree in goparse.trees(text)
        for node, _ in goparse.walk(tree)
        if isinstance(node, ast.RangeNode | ast.BlockNode)
    ]
    blocks = {node.start for node in loops if isinstance(node, ast.BlockNode)}
    heads = [node.pipeline.end for node in loops] + [
        _head_end(source, definition.start)
        for definition in goparse.parse(text).definitions
        if definition.start not in blocks
    ]
    starts = [_action_end(source, head) for head in heads]
    for place, trim in sorted(set(starts), reverse=True):
        call = b"{{ " + TICK.encode() + (b" -}}" if trim else b" }}")
        source = source[:place] + call + source[place:]
    return source.decode()


def _head_end(source: bytes, place: int) -> int:
    """Where the name ends in the ``{{ define "name" }}`` at ``place``."""
    if not (head := _DEFINE.match(source, place)):
        raise goparse.TemplateTextError(f"template: :1: cannot find the definition at {place}")
    return head.end()


def _action_end(source: bytes, place: int) -> tuple[int, bool]:
    """Where the action around ``place`` is over, and whether it trims what follows."""
    if not (end := _ACTION_END.match(source, place)):
        raise goparse.TemplateTextError(f"template: :1: cannot find the action's end at {place}")
    return end.end(), bool(end.group(1))


def _cut_after_response(text: str) -> str:
    """``text`` up to the first action that prints ``.Response``, open blocks closed."""
    source = text.encode()
    for node, ancestors in goparse.walk(goparse.parse(text).root):
        if not (isinstance(node, ast.FieldNode) and "Response" in node.fields):
            continue
        action = next((n for n in reversed(ancestors) if not _inside_action(n)), None)
        if not isinstance(action, ast.ActionNode):
            continue  # a condition, not the place of the answer
        place, _ = _action_end(source, action.pipeline.end)
        blocks = (ast.IfNode, ast.WithNode, ast.RangeNode, ast.BlockNode)
        ends = b"{{ end }}" * sum(isinstance(n, blocks) for n in ancestors)
        return (source[:place] + ends + _definitions_after(text, place)).decode()
    return text


def _definitions_after(text: str, place: int) -> bytes:
    """The definitions behind ``place``, which an action before it may call."""
    source = text.encode()
    heads = ((d, _DEFINE.match(source, d.start)) for d in goparse.parse(text).definitions)
    return b"".join(source[d.start : d.end] for d, head in heads if head and d.start >= place)


def _inside_action(node: Any) -> bool:
    return isinstance(node, ast.PipeNode | ast.CommandNode | ast.ParenthesizedNode)
