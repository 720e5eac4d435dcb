"""What a model can do by its templates, found by reading them. Nothing is executed."""

from __future__ import annotations

from lhama.daemon.prompt import goparse, thinking
from lhama.daemon.prompt.goparse import TemplateTextError
from lhama.daemon.prompt.parsers.registry import PARSERS

_GO_RESULTS = ('eq .Role "tool"', "tool_response", "TOOL_RESULTS")
_JINJA_RESULTS = (
    "tool_response",
    "tool_results",
    "role'] == 'tool'",
    'role\'] == "tool"',
    "role\"] == 'tool'",
    'role"] == "tool"',
    "message.role == 'tool'",
    'message.role == "tool"',
    "ipython",
)


def of_go(text: str) -> set[str]:
    """Of ``tools``, ``insert``, ``thinking``; none for a template that does not parse."""
    try:
        names = goparse.identifiers(text)
        found = {"tools"} & names
        if "suffix" in names:
            found.add("insert")
        if thinking.tags_of_go(text):
            found.add("thinking")
    except TemplateTextError:
        return set()
    return set(found)


def of_jinja(text: str) -> set[str]:
    """Of ``tools`` and ``thinking``."""
    found = {"tools"} if "tools" in text or "tool_call" in text else set()
    return found | {"thinking"} if thinking.tags_of_jinja(text) else found


def of_parser(name: str) -> list[str]:
    """``tools`` and ``thinking``, as far as the built-in parser of this name knows them."""
    parser = PARSERS.get(name)
    able = {"tools": parser.tools, "thinking": parser.thinking} if parser else {}
    return [capability for capability, is_able in able.items() if is_able]


def of_template(go_template: str, jinja: str, go_setting: bool | None = None) -> set[str]:
    """Capabilities of the template that would render; see ``select.select``."""
    if jinja and use_jinja(go_template, jinja, go_setting):
        return of_jinja(jinja)
    return of_go(go_template) if go_template else set()


def use_jinja(go_template: str, jinja: str, go_setting: bool | None) -> bool:
    """Whether Jinja text that is there goes before the Go template."""
    if not go_template:
        return True
    return prefers_jinja(go_template, jinja) if go_setting is None else not go_setting


def prefers_jinja(go_template: str, jinja: str) -> bool:
    """Whether the Jinja text can do more: more capabilities and no loss of the tool round trip,
    or the same with tools and a round trip that the Go template lacks."""
    go, other = of_go(go_template), of_jinja(jinja)
    go_returns, other_returns = (
        _returns_results_of_go(go_template),
        _returns_results_of_jinja(jinja),
    )
    if len(other) > len(go):
        return other_returns or not go_returns
    return other == go and "tools" in other and other_returns and not go_returns


def _returns_results_of_go(text: str) -> bool:
    """Whether the template shows the model its calls and what came of them."""
    try:
        names = goparse.identifiers(text)
    except TemplateTextError:
        return False
    return {"tools", "toolcalls"} <= names and any(mark in text for mark in _GO_RESULTS)


def _returns_results_of_jinja(text: str) -> bool:
    calls = any(mark in text for mark in ("tool_calls", "assistant_tool_call"))
    return calls and any(mark in text for mark in _JINJA_RESULTS)
