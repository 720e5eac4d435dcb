"""Finds plugins and lets each register what it brings; a bad one hurts nobody but itself.

The one module that touches pluggy's relay. It runs in every process, daemon and runners, and
leaves nothing behind: two discoveries give two independent registries.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import time
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from typing import Any, Final, NamedTuple

import pluggy

from lhama.plugins import hookspecs, trial
from lhama.plugins.backend import API_VERSION, OLDEST_API_VERSION
from lhama.plugins.hookspecs import LhamaDeprecation
from lhama.plugins.registry import PluginReport, Registry

BLOCK_ALL = "*"
"""In ``blocked``: every plugin that does not come with lhama itself."""

SLOW_SECONDS = 1.0
"""Plugins that take longer to load are told of: every start of lhama waits for them."""


class Kind(NamedTuple):
    """Something plugins may register: its noun, the hook it comes by, what it must have."""

    noun: str
    hook: str
    methods: tuple[str, ...]


BACKEND: Final = Kind(
    "backend", "lhama_register_backends", ("probe", "supports", "estimate", "load")
)
QUANTIZER: Final = Kind("quantizer", "lhama_register_quantizers", ("supports", "quantize"))
CONVERTER: Final = Kind(
    "converter", "lhama_register_converters", ("supports", "convert", "convert_adapter")
)
KINDS: Final = (BACKEND, QUANTIZER, CONVERTER)


class BadPlugin(Exception):
    """A plugin broke a rule of the contract; the message goes into its report."""


class PluginManager:
    """Typed facade of pluggy: entry points in, ``Registry`` out."""

    def __init__(self) -> None:
        self._relay = pluggy.PluginManager(hookspecs.PROJECT)
        self._relay.add_hookspecs(hookspecs)
        self._offers: dict[Kind, dict[str, Any]] = {kind: {} for kind in KINDS}
        """By kind and name."""
        self._owners: dict[tuple[Kind, str], str] = {}
        self._reports: dict[str, PluginReport] = {}
        self._warnings: list[str] = []
        """Of the plugin that is being loaded."""

    def discover(self, blocked: Collection[str] = (), *, tried: bool = False) -> Registry:
        """Load the entry points of group ``lhama`` one by one, those in ``blocked`` not at all.

        Those of other distributions are loaded in processes of their own first, unless the daemon
        has ``tried`` them. Call once. Never raises for a plugin's sake: failures are in
        ``Registry.reports``.
        """
        points = _entry_points()
        foreign = [p for p in points if _is_foreign(p) and not _is_blocked(p, blocked)]
        verdicts = {} if tried else trial.verdicts(foreign)
        for point in points:
            self._admit(point, blocked, verdicts.get(point, ""))
        return Registry(
            backends=self._offers[BACKEND],
            reports=tuple(self._reports.values()),
            quantizers=self._offers[QUANTIZER],
            converters=self._offers[CONVERTER],
        )

    def load(self, point: EntryPoint) -> None:
        """Load one plugin and have it register what it brings. Raises whatever it raises."""
        self._register(point.name, point.load())

    def _admit(self, point: EntryPoint, blocked: Collection[str], verdict: str) -> None:
        distribution, version = _origin(point)
        name = point.name
        if name in self._reports:  # another distribution's plugin of the same name
            name = f"{point.name} ({distribution})"
        if _is_blocked(point, blocked):
            self._reports[name] = PluginReport(name, version, distribution, "blocked")
            return
        self._warnings = []
        began = time.monotonic()
        try:
            if verdict:
                raise BadPlugin(verdict)
            if name != point.name:
                taken_by = self._reports[point.name].distribution
                raise BadPlugin(f"the plugin name '{point.name}' is taken by {taken_by}")
            with self._listening():
                offers = self._register(name, point.load())
        # SystemExit too: a module that exits at import must not take the daemon along.
        except (Exception, SystemExit) as error:
            self._reports[name] = PluginReport(
                name, version, distribution, "failed", error=_in_words(error)
            )
            return
        if (seconds := time.monotonic() - began) > SLOW_SECONDS:
            self._warnings.append(f"it takes {seconds:.1f} s to load, at every start of lhama")
        for kind, offer in offers:
            self._offers[kind][offer.name] = offer
            self._owners[kind, offer.name] = name
        backends = tuple(offer.name for kind, offer in offers if kind is BACKEND)
        tools = tuple(offer.name for kind, offer in offers if kind is not BACKEND)
        self._reports[name] = PluginReport(
            name,
            version,
            distribution,
            "loaded",
            backends,
            tools,
            warnings=tuple(self._warnings),
        )

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Keep our own deprecations for the report; other warnings go where they would have."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", LhamaDeprecation)
            yield
        for warning in caught:
            if issubclass(warning.category, LhamaDeprecation):
                self._warnings.append(str(warning.message))
            else:
                warnings.warn_explicit(
                    warning.message, warning.category, warning.filename, warning.lineno
                )

    def _register(self, name: str, plugin: object) -> list[tuple[Kind, Any]]:
        """Let one plugin call ``register`` and return what it registered, all checked.

        Whatever goes wrong, the plugin's hooks are gone from the relay afterwards.
        """
        offers: list[tuple[Kind, Any]] = []
        others = self._relay.get_plugins()
        try:
            self._relay.register(plugin, name)
            self._check_hooks(plugin)
            for kind in KINDS:
                offered: list[Any] = []
                self._relay.subset_hook_caller(kind.hook, others)(register=offered.append)
                for offer in offered:
                    self._check_offer(kind, offer, offers)
                    offers.append((kind, offer))
        except BaseException:
            if self._relay.is_registered(plugin):
                self._relay.unregister(plugin)
            raise
        return offers

    def _check_hooks(self, plugin: object) -> None:
        """Refuse hooks that are no hooks of ours, and plugins without any."""
        callers = self._relay.get_hookcallers(plugin) or []
        if not callers:
            raise BadPlugin("it implements no hook: is @hookimpl missing?")
        known = [name for name in vars(hookspecs) if name.startswith(f"{hookspecs.PROJECT}_")]
        for caller in callers:
            own = [impl for impl in caller.get_hookimpls() if impl.plugin is plugin]
            if caller.spec is not None or all(impl.optionalhook for impl in own):
                continue
            close = difflib.get_close_matches(caller.name, known, n=1)
            hint = f", did you mean {close[0]}?" if close else ""
            raise BadPlugin(f"unknown hook {caller.name}{hint}")

    def _check_offer(self, kind: Kind, offer: Any, earlier: list[tuple[Kind, Any]]) -> None:
        noun = kind.noun
        name = getattr(offer, "name", None)
        if not isinstance(name, str) or not name:
            raise BadPlugin(f"{type(offer).__name__} has no name: it is no {noun.capitalize()}")
        version = getattr(offer, "api_version", None)
        if not isinstance(version, int) or not OLDEST_API_VERSION <= version <= API_VERSION:
            if version is None:
                raise BadPlugin(
                    f"{noun} '{name}' has no api_version: it is the version of the plugin contract "
                    f"that it was written for, today {API_VERSION}"
                )
            newer = isinstance(version, int) and version > API_VERSION
            raise BadPlugin(
                f"{noun} '{name}' was written for version {version} of the plugin contract and "
                f"this lhama speaks version {API_VERSION}: "
                f"update {'lhama' if newer else 'the plugin'}"
            )
        if version < API_VERSION:
            self._warnings.append(
                f"{noun} '{name}' was written for version {version} of the plugin contract, which a "
                f"later lhama will not speak: update the plugin to version {API_VERSION}"
            )
        missing = [m for m in kind.methods if not callable(getattr(offer, m, None))]
        if missing:
            raise BadPlugin(f"{noun} '{name}' lacks {', '.join(missing)}")
        if owner := self._owners.get((kind, name)):
            raise BadPlugin(f"the {noun} name '{name}' is taken by the plugin {owner}")
        if any(other.name == name for k, other in earlier if k is kind):
            raise BadPlugin(f"it registers the {noun} '{name}' twice")


def discover(blocked: Collection[str] = ()) -> Registry:
    """Load all plugins but the blocked ones; see ``PluginManager.discover``."""
    return PluginManager().discover(blocked)


def entry_point(name: str, value: str) -> EntryPoint:
    """As an installed distribution has it."""
    return EntryPoint(name, value, hookspecs.PROJECT)


def _is_foreign(point: EntryPoint) -> bool:
    return _origin(point)[0] != hookspecs.PROJECT


def _is_blocked(point: EntryPoint, blocked: Collection[str]) -> bool:
    return point.name in blocked or (BLOCK_ALL in blocked and _is_foreign(point))


def _entry_points() -> list[EntryPoint]:
    """lhama's own plugins first, then by distribution and name: the same order everywhere."""

    def order(point: EntryPoint) -> tuple[bool, str, str]:
        distribution, _ = _origin(point)
        return distribution != hookspecs.PROJECT, distribution, point.name

    return sorted(importlib.metadata.entry_points(group=hookspecs.PROJECT), key=order)


def _origin(point: EntryPoint) -> tuple[str, str]:
    if point.dist is None:
        return "", ""
    return point.dist.name, point.dist.version


def _in_words(error: BaseException) -> str:
    if isinstance(error, BadPlugin):
        return str(error)
    return f"{type(error).__name__}: {error}"
