"""What a model can do by its templates, found by reading them. Nothing is executed."""

from __future__ import annotations

from lhama.daemon.prompt import goparse, thinking
from lhama.daemon.prompt.goparse import TemplateTextError

_COMPARED = frozenset({"tools", "thinking"})


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
    go, other = of_go(go_template) & _COMPARED, of_jinja(jinja) & _COMPARED
    go_returns = _shows_calls_of_go(go_template)
    other_returns = "tool_calls" in jinja
    if other > go:
        return other_returns or not go_returns
    return other == go and "tools" in other and other_returns and not go_returns


def _shows_calls_of_go(text: str) -> bool:
    try:
        return "toolcalls" in goparse.identifiers(text)
    except TemplateTextError:
        return False
