"""The conformance suite finds liars: engines that break one promise each fail the check for it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from textwrap import dedent
from xml.etree import ElementTree

import pytest
from lhama_testing_liars import HONEST, LIARS, TEXT_LIARS, module

from lhama.plugins.testing import BackendConformance
from lhama.plugins.testing.contract import Contract

pytestmark = pytest.mark.timeout(600)  # eighty engines before all checks


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """pytest in a project of its own, without any configuration."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )


Verdicts = dict[str, dict[str, str | None]]
"""By engine: the checks that were made, with what those said that failed; ``None`` if skipped."""


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Verdicts:
    """All engines before all checks."""
    folder = tmp_path_factory.mktemp("liars")
    modules = {"honest": module(HONEST), "honest_text": module("", text=True)}
    modules |= {name: module(source) for name, (_, source) in LIARS.items()}
    modules |= {name: module(source, text=True) for name, (_, source) in TEXT_LIARS.items()}
    for name, content in modules.items():
        (folder / f"test_{name}.py").write_text(content)
    done = run(folder, "--junit-xml=report.xml")
    assert done.returncode == 1, done.stdout + done.stderr
    found: Verdicts = {name: {} for name in modules}
    for case in ElementTree.parse(folder / "report.xml").iter("testcase"):
        engine = case.attrib["classname"].partition(".")[0].removeprefix("test_")
        said: str | None = None
        if case.find("skipped") is None:
            failure = case.find("failure")
            said = "" if failure is None else failure.text
        found[engine][case.attrib["name"]] = said
    return found


def test_there_are_many_checks() -> None:
    assert sum(name.startswith("test_") for name in dir(BackendConformance)) >= 60


@pytest.mark.parametrize("name", ["honest", "honest_text"])
def test_an_honest_engine_passes(verdicts: Verdicts, name: str) -> None:
    assert len(verdicts[name]) >= 30
    assert not any(verdicts[name].values())


@pytest.mark.parametrize("name", [*LIARS, *TEXT_LIARS])
def test_a_liar_is_found_by_the_check_for_its_lie(verdicts: Verdicts, name: str) -> None:
    promise, _ = (LIARS | TEXT_LIARS)[name]
    checks = {check: said for check, said in verdicts[name].items() if promise in check}
    assert any(checks.values()), [check for check, said in verdicts[name].items() if said]


def failed(verdicts: Verdicts, names: Iterable[str]) -> set[str]:
    return {check for name in names for check, said in verdicts[name].items() if said}


def made(verdicts: Verdicts, name: str) -> set[str]:
    return {check for check, said in verdicts[name].items() if said is not None}


def test_every_check_finds_a_liar(verdicts: Verdicts) -> None:
    """A check that nobody fails proves nothing."""
    assert made(verdicts, "honest") - failed(verdicts, LIARS) == set()
    of_backends = {name for name in vars(Contract) if name.startswith("test_")}
    of_text = made(verdicts, "honest_text") - of_backends
    assert of_text - failed(verdicts, TEXT_LIARS) == set()
    assert len(of_text) >= 18


def test_asserts_are_explained_without_any_plugin(verdicts: Verdicts) -> None:
    """As pytest explains those in test modules: with the values on both sides."""
    assert "where" in (verdicts["ignores_masks"]["test_one_allowed_token_is_drawn"] or "")


def test_pytest_does_not_load_it_for_those_who_do_not_ask(tmp_path: Path) -> None:
    (tmp_path / "test_other.py").write_text(
        "import sys\n\ndef test_it():\n"
        "    assert not [m for m in sys.modules if m.startswith('lhama')]\n"
    )
    done = run(tmp_path)
    assert done.returncode == 0, done.stdout


def test_the_fixtures_serve_a_model(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["lhama.plugins.testing"]\n')
    (tmp_path / "test_served.py").write_text(
        dedent("""
        import json, urllib.request

        def test_it_is_there(lhama_registry, lhama_daemon):
            assert "reference" in lhama_registry.backends
            with urllib.request.urlopen(lhama_daemon() + "/api/tags") as reply:
                assert json.load(reply) == {"models": []}
        """)
    )
    done = run(tmp_path)
    assert done.returncode == 0, done.stdout
