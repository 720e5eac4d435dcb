"""``lhama --version`` and ``lhama plugins``: what is installed here."""

from __future__ import annotations

from importlib.metadata import version as installed_version

from lhama.daemon import durations
from lhama.daemon.cli import output
from lhama.daemon.cli.client import Client
from lhama.daemon.config import Settings
from lhama.daemon.errors import LhamaError
from lhama.daemon.sources import key
from lhama.plugins.manager import discover
from lhama.plugins.registry import PluginReport, Registry


def version(client: Client) -> None:
    """This lhama's version, and the API version of the server if one runs."""
    output.say(f"lhama version is {installed_version('lhama')}")
    try:
        output.say(f"server at {client.url} speaks Ollama {client.get('/api/version')['version']}")
    except LhamaError:
        output.say(f"no server is running at {client.url}")


_FIELDS = {
    "no_plugins": "blocked_plugins",
    "noprune": "no_prune",
    "nohistory": "no_history",
    "debug_log_requests": "log_requests",
}
"""Settings whose field has another name than their variable."""

_SECRETS = ("api_key", "api_keys", "hf_token")
_DURATIONS = ("keep_alive", "load_timeout", "step_timeout", "shutdown_grace")


def config(settings: Settings) -> None:
    """One line for each setting: its name, where its value is from, the value. No secret is shown."""
    rows: list[tuple[str, str, str]] = []
    for variable, origin in settings.origin_of.items():
        name = key(variable)
        if name in {row[0] for row in rows} or not hasattr(settings, _FIELDS.get(name, name)):
            continue
        rows.append((name, origin, _shown(settings, name)))
    output.say(output.table(("NAME", "FROM", "VALUE"), sorted(rows)))  # values may be long


def _shown(settings: Settings, name: str) -> str:
    value = getattr(settings, _FIELDS.get(name, name))
    if name in _SECRETS:
        return "(not shown)" if value else ""
    if name == "host":
        return settings.address
    if name in _DURATIONS:
        return durations.render(value)
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def plugins(settings: Settings) -> None:
    """One line for each plugin, then the reasons of what does not work."""
    registry = discover(settings.blocked_plugins)
    rows, problems = [], []
    for report in registry.reports:
        if report.error:
            problems.append(f"{report.name}: {report.error}")
        problems += [f"{report.name}: {warning}" for warning in report.warnings]
        devices, trouble = _devices(report, registry)
        problems += trouble
        state = "unavailable" if trouble and not devices else report.state
        tools = ", ".join(report.tools)
        rows.append((report.name, report.version, devices or "-", tools or "-", state))
    output.say(output.table(("NAME", "VERSION", "DEVICES", "TOOLS", "STATE"), rows))
    if problems:
        output.say("\n" + "\n".join(problems))


def _devices(report: PluginReport, registry: Registry) -> tuple[str, list[str]]:
    """The devices a plugin's backends found, and what keeps a backend from running."""
    devices, problems = [], []
    for name in report.backends:
        found = registry.probe(registry.backends[name])
        devices += [device.id for device in found.devices]
        if found.problem:
            problems.append(f"{name}: {found.problem}")
    return ", ".join(dict.fromkeys(devices)), problems
