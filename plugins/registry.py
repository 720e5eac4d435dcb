"""What plugins brought along: the backends by name, a report on each plugin, and the choice."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Literal

from lhama.plugins.asking import Asker
from lhama.plugins.backend import (
    Backend,
    BackendError,
    LoadOptions,
    MemoryEstimate,
    ModelFiles,
    Probe,
    Support,
    UnsupportedModel,
)
from lhama.plugins.tools import Converter, Quantizer


@dataclass(frozen=True, slots=True)
class PluginReport:
    """How one plugin fared. ``error`` is empty unless ``state`` is ``failed``."""

    name: str
    """The entry point's name: what ``--no-plugins=NAME`` takes."""
    version: str
    """Version of the distribution that brings the plugin."""
    distribution: str
    state: Literal["loaded", "failed", "blocked"]
    backends: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    """Names of its quantisers and converters."""
    error: str = ""
    warnings: tuple[str, ...] = ()
    """What still works and will not for ever: deprecations, an import that takes long."""


@dataclass(frozen=True, slots=True)
class Registry:
    """The outcome of discovery; all mappings are in the order of discovery."""

    backends: dict[str, Backend] = field(default_factory=dict)
    reports: tuple[PluginReport, ...] = ()
    quantizers: dict[str, Quantizer] = field(default_factory=dict)
    converters: dict[str, Converter] = field(default_factory=dict)
    _asker: Asker = field(default_factory=Asker, repr=False, compare=False)

    def probe(self, backend: Backend) -> Probe:
        """``backend.probe()``, with whatever goes wrong turned into a problem."""
        try:
            return self._asker.ask(backend.name, "probe", backend.probe, Probe)
        except BackendError as error:
            return Probe(problem=str(error))

    def judge(self, backend: Backend, model: ModelFiles) -> Support:
        """``backend.supports(model)``; a problem of the machine or of the backend is a refusal."""
        if problem := self.probe(backend).problem:
            return Support(0, problem)
        try:
            return self._asker.ask(
                backend.name, "supports", lambda: backend.supports(model), Support
            )
        except BackendError as error:
            return Support(0, str(error))

    def estimate(self, backend: Backend, model: ModelFiles, options: LoadOptions) -> MemoryEstimate:
        """``backend.estimate(…)``. Raises ``BackendError``."""
        return self._asker.ask(
            backend.name, "estimate", lambda: backend.estimate(model, options), MemoryEstimate
        )

    def judge_tool(self, tool: Quantizer | Converter, *arguments: str) -> Support:
        """``tool.supports(…)``, as ``judge``."""
        try:
            return self._asker.ask(
                tool.name, "supports", lambda: tool.supports(*arguments), Support
            )
        except BackendError as error:
            return Support(0, str(error))

    def others(self, offer: str) -> list[str]:
        """All plugins but those that bring a backend or a tool of this name: who runs it needs none
        of them."""
        return [r.name for r in self.reports if offer not in (*r.backends, *r.tools)]

    def able(
        self, model: ModelFiles, forced: str = "", without: Container[str] = ()
    ) -> list[tuple[Backend, Support]]:
        """The backends that can run ``model``, that with the highest score first, or the one named
        ``forced``; never empty. ``without``: some that are not wanted.

        Raises ``UnsupportedModel`` with every backend's reason when none can run it. Between
        equal scores the first discovered wins.
        """
        verdicts = self.verdicts(model, forced)
        able = [(b, s) for b, s in verdicts if s.score > 0 and b.name not in without]
        if not able:
            raise UnsupportedModel(self._no_backend_for(model, verdicts))
        return able

    def verdicts(self, model: ModelFiles, forced: str = "") -> list[tuple[Backend, Support]]:
        """What the backends say of ``model``, the best first; of ``forced`` alone if it is named.

        Raises ``UnsupportedModel`` where there is none of that name.
        """
        if forced and forced not in self.backends:
            raise UnsupportedModel(self.no_such_backend(forced))
        asked = [self.backends[forced]] if forced else list(self.backends.values())
        found = [(backend, self.judge(backend, model)) for backend in asked]
        return sorted(found, key=lambda verdict: -verdict[1].score)

    def _no_backend_for(
        self, model: ModelFiles, refusing: Sequence[tuple[Backend, Support]]
    ) -> str:
        refusals = [f"{b.name}: {support.reason or 'no reason given'}" for b, support in refusing]
        failures = [f"{r.name}: plugin failed: {r.error}" for r in self.reports if r.error]
        reasons = refusals + failures or ["no backend is installed"]
        return f"no backend can run model '{model.name}': " + "; ".join(reasons)

    def no_such_backend(self, name: str) -> str:
        """Why there is no backend of that name, in words."""
        for report in self.reports:
            if report.name == name and report.state == "blocked":
                return f"backend '{name}' is blocked by --no-plugins"
            if report.name == name and report.state == "failed":
                return f"backend '{name}' failed to load: {report.error}"
        known = ", ".join(self.backends) or "none"
        return f"there is no backend '{name}' (available: {known})"
