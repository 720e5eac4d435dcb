"""A daemon with what the clients ask for, and one run of all client programs against it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from lhama_testing_clients import GROUPS, Outcome, installed, rows, run
from lhama_testing_daemon import Daemon, running

from lhama.backends.reference import model
from lhama.backends.reference.model import Behaviour

TOOLS_TEMPLATE = """\
{{- $last := "" }}{{- range .Messages }}{{- $last = .Role }}{{- end }}
{{- if and .Tools (eq $last "user") }}<|im_start|>system
Tools: {{ .Tools }}<|im_end|>
<|im_start|>user
What is the weather in Rome?<|im_end|>
<|im_start|>assistant
{"name": "get_weather", "arguments": {"city": "Rome"}}<|im_end|>
<|im_start|>user
What is the weather in Berlin?<|im_end|>
<|im_start|>assistant
{"name": "get_weather", "arguments": {"city": "Berlin"}}<|im_end|>
{{ end }}{{- range .Messages }}{{- if eq .Role "tool" }}<|im_start|>user
The report says: {{ .Content }}. Say it in one sentence.<|im_end|>
{{ else if and (ne .Role "system") (or (not .ToolCalls) (ne $last "tool")) }}<|im_start|>{{ .Role }}
{{ if .ToolCalls }}{{ range .ToolCalls }}{"name": "{{ .Function.Name }}", "arguments": \
{{ .Function.Arguments }}}{{ end }}{{ else }}{{ .Content }}{{ end }}<|im_end|>
{{ end }}{{ end }}<|im_start|>assistant
"""
"""Made up so that a model of 135 million parameters calls a tool, since it is shown twice how, and
does not go on calling: with a result, the call is not shown again."""


@pytest.fixture(scope="session")
def daemon(
    tmp_path_factory: pytest.TempPathFactory, smollm2: Path, minilm: Path
) -> Iterator[Daemon]:
    """SmolLM2 as it is and with tools, an embedding model, and two ill-behaved reference models."""
    folder = tmp_path_factory.mktemp("clients")
    model.write(folder / "endless.gguf", Behaviour(compute_us=10_000))
    model.write(folder / "crash.gguf", Behaviour(fault="crash", fault_step=6))
    with running(folder / "models") as daemon:
        daemon.create("smollm2:135m", smollm2)
        daemon.create("tools", smollm2, template=TOOLS_TEMPLATE)
        daemon.create("all-minilm", minilm)
        daemon.create("endless", folder / "endless.gguf")
        daemon.create("crash", folder / "crash.gguf")
        yield daemon


class Run:
    """Installs and runs a group of clients once; all groups at the same time."""

    def __init__(self, daemon: Daemon) -> None:
        self._pool = ThreadPoolExecutor(len(GROUPS))
        self._runs = {g.name: self._pool.submit(self._run, g, daemon) for g in GROUPS}

    def _run(self, group, daemon):  # type: ignore[no-untyped-def]
        folder = installed(group)
        outcomes = run(group, folder, daemon.url)
        for row in rows(group, folder, outcomes):
            row.write()
        return outcomes

    def outcome(self, group: str, program: str, check: str) -> Outcome:
        """Waits for the group's run; skips or fails as its installation did."""
        outcomes = self._runs[group].result()
        (found,) = [o for o in outcomes if (o.program, o.check) == (program, check)]
        return found


@pytest.fixture(scope="session")
def client_run(daemon: Daemon) -> Run:
    return Run(daemon)
