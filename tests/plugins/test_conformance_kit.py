"""The conformance suite finds liars: engines that break one promise each fail the check for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from xml.etree import ElementTree

import pytest

from lhama.plugins.testing import BackendConformance

PREAMBLE = """
import dataclasses
import pytest
from lhama.backends.reference import engine as reference
from lhama.backends.reference.model import read_behaviour, write
from lhama.backends.reference.plugin import ReferenceBackend
from lhama.plugins.backend import *
from lhama.plugins.backend import DROPPED
from lhama.plugins.testing import BackendConformance, Subject

class Honest(reference.ReferenceEngine):
    pass

class Backend(ReferenceBackend):
    def load(self, model, options, progress):
        super().load(model, options, progress).close()
        return LIAR(read_behaviour(model.weights), options)

@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    path = tmp_path_factory.mktemp("kit") / "model.gguf"
    write(path)
    options = LoadOptions(slots=2, context=128, batch=64)
    return Subject(Backend(), ModelFiles("kit", str(path)), options, registered=False)

class TestLiar(BackendConformance):
    pass
"""
"""The module's own backend reads ``LIAR`` when it loads."""

HONEST = "LIAR = Honest"

LIARS = {
    "ignores_dropped": (
        "a_dropped_row",
        """
        class LIAR(Honest):
            def compute_current(self, prepared, tokens):
                return super().compute_current(prepared, [max(token, 0) for token in tokens])
        """,
    ),
    "mixes_slots": (
        "full_house",
        """
        class LIAR(Honest):
            def _sample(self, row, mask):
                found = super()._sample(row, mask)
                other = self._hashes[1 - row.slot].digest()[0] % 2
                return dataclasses.replace(found, token=found.token ^ other)
        """,
    ),
    "keeps_the_cache": (
        "trimming_to_nothing",
        """
        class LIAR(Honest):
            def _apply(self, op):
                if not isinstance(op, Trim):
                    super()._apply(op)
            def _require(self, condition, what):
                pass
        """,
    ),
    "forgets_the_seed": (
        "a_seed_repeats",
        """
        import itertools
        count = itertools.count()
        class LIAR(Honest):
            def _sample(self, row, mask):
                admit = self._sampling[row.slot]
                wild = dataclasses.replace(admit.sampling, seed=next(count))
                self._sampling[row.slot] = dataclasses.replace(admit, sampling=wild)
                return super()._sample(row, mask)
        """,
    ),
    "loses_epochs": (
        "results_come_in_the_order",
        """
        class LIAR(Honest):
            def _sample(self, row, mask):
                return dataclasses.replace(super()._sample(row, mask), epoch=1)
        """,
    ),
    "shares_a_batch": (
        "preparing_while_a_step_computes",
        """
        class LIAR(Honest):
            # one plan for both steps: the second prepare writes over the first
            current = None
            def prepare_next(self, plan, previous):
                self.current = super().prepare_next(plan, previous)
                return self.current
            def compute_current(self, prepared, tokens):
                return super().compute_current(prepared, tokens)
            def _step(self, handle):
                import time; time.sleep(0.01)
                handle.plan = self.current.plan
                return super()._step(handle)
        """,
    ),
    "leaks_threads": (
        "closing_ends_its_threads",
        """
        import threading
        class LIAR(Honest):
            def close(self):
                threading.Thread(target=threading.Event().wait, daemon=True).start()
                super().close()
        """,
    ),
    "ignores_masks": (
        "one_allowed_token",
        """
        class LIAR(Honest):
            def _sample(self, row, mask):
                return super()._sample(row, None)
        """,
    ),
}


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """pytest in a project of its own, without any configuration."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )


Verdicts = dict[str, dict[str, str]]
"""By engine: the checks that were made, and what those said that failed."""


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Verdicts:
    """All engines before all the checks that one of them should fail."""
    folder = tmp_path_factory.mktemp("liars")
    engines = {"honest": HONEST, **{name: source for name, (_, source) in LIARS.items()}}
    for name, source in engines.items():
        (folder / f"test_{name}.py").write_text(PREAMBLE + dedent(source))
    promises = " or ".join(promise for promise, _ in LIARS.values())
    done = run(folder, "-k", promises, "--junit-xml=report.xml")
    assert done.returncode == 1, done.stdout + done.stderr
    found: Verdicts = {name: {} for name in engines}
    for case in ElementTree.parse(folder / "report.xml").iter("testcase"):
        assert case.find("error") is None, done.stdout
        failure = case.find("failure")
        engine = case.attrib["classname"].partition(".")[0].removeprefix("test_")
        said = "" if failure is None else failure.text or ""
        found[engine][case.attrib["name"]] = said
    return found


def test_there_are_many_checks() -> None:
    assert sum(name.startswith("test_") for name in dir(BackendConformance)) >= 60


def test_an_honest_engine_passes(verdicts: Verdicts) -> None:
    assert len(verdicts["honest"]) >= len(LIARS)
    assert not any(verdicts["honest"].values())


@pytest.mark.parametrize("name", LIARS)
def test_a_liar_is_found(verdicts: Verdicts, name: str) -> None:
    promise, _ = LIARS[name]
    checks = {check: said for check, said in verdicts[name].items() if promise in check}
    assert any(checks.values()), verdicts[name]


def test_asserts_are_explained_without_any_plugin(verdicts: Verdicts) -> None:
    """As pytest explains those in test modules: with the values on both sides."""
    assert "where" in verdicts["ignores_masks"]["test_one_allowed_token_is_drawn"]


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
