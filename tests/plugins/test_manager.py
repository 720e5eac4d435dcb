"""Discovery against real distributions: a module and its dist-info on ``sys.path``."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from lhama.plugins import asking, hookspecs, manager, trial
from lhama.plugins.backend import (
    API_VERSION,
    BackendError,
    Engine,
    LoadOptions,
    MemoryEstimate,
    ModelFiles,
    Probe,
    Progress,
    Support,
    UnsupportedModel,
)
from lhama.plugins.manager import BLOCK_ALL, PluginManager, discover
from lhama.plugins.registry import PluginReport, Registry

Install = Callable[..., None]

BACKEND = """
from lhama.plugins import hookimpl
from lhama.plugins.backend import API_VERSION, MemoryEstimate, Probe, Support

class Backend:
    def __init__(self, name, api_version=API_VERSION):
        self.name, self.api_version = name, api_version
    def probe(self):
        return Probe()
    def supports(self, model):
        return Support(50)
    def estimate(self, model, options):
        return MemoryEstimate(1, 2, 3)
    def load(self, model, options, progress):
        raise NotImplementedError
"""

GOOD = """
@hookimpl
def lhama_register_backends(register):
    register(Backend("sunny"))
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a distribution ``lhama-NAME`` with the plugin NAME made of ``source``."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(name: str, source: str, *, plugin: str = "", preamble: str = BACKEND) -> None:
        module = f"lhama_test_{name}"
        (tmp_path / f"{module}.py").write_text(preamble + dedent(source))
        info = tmp_path / f"lhama_{name}-2.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: lhama-{name}\nVersion: 2.5\n")
        (info / "entry_points.txt").write_text(f"[lhama]\n{plugin or name} = {module}\n")
        monkeypatch.delitem(sys.modules, module, raising=False)

    return install


def report(registry: Registry, name: str) -> PluginReport:
    return next(r for r in registry.reports if r.name == name)


def test_a_good_plugin_registers_its_backend(install: Install) -> None:
    install("good", GOOD)
    registry = discover()
    assert registry.backends["sunny"].name == "sunny"
    assert report(registry, "good") == PluginReport(
        "good", "2.5", "lhama-good", "loaded", ("sunny",)
    )


TOOLS = """
class Quantizer:
    name, api_version = "tiny", API_VERSION
    def supports(self, source, kind):
        return Support(50)
    def quantize(self, source, target, kind, progress):
        raise NotImplementedError

@hookimpl
def lhama_register_quantizers(register):
    register(Quantizer())
"""


def test_tools_are_registered_beside_backends(install: Install) -> None:
    install("handy", GOOD + TOOLS)
    registry = discover()
    assert registry.quantizers["tiny"].supports("x.gguf", "Q8_0").score == 50
    assert report(registry, "handy").backends == ("sunny",)
    assert report(registry, "handy").tools == ("tiny",)


def test_a_backend_and_a_tool_may_share_a_name(install: Install) -> None:
    install("handy", GOOD + TOOLS.replace('"tiny"', '"sunny"'))
    assert report(discover(), "handy").state == "loaded"


def test_a_tool_keeps_the_rules_of_backends(install: Install) -> None:
    install("lame", TOOLS.replace("def quantize", "def quantise"))
    install("old", TOOLS.replace("API_VERSION", "0"))
    install("one", TOOLS)
    install("two", TOOLS)
    registry = discover()
    assert report(registry, "lame").error == "quantizer 'tiny' lacks quantize"
    assert "quantizer 'tiny' was written for version 0" in report(registry, "old").error
    assert report(registry, "two").error == "the quantizer name 'tiny' is taken by the plugin one"


def test_discovery_repeats(install: Install) -> None:
    install("good", GOOD)
    first, second = discover(), discover()
    assert first.reports == second.reports
    assert first.backends["sunny"] is not second.backends["sunny"]


def test_blocked_by_name_before_import(install: Install) -> None:
    install("good", GOOD)
    registry = discover({"good"})
    assert "sunny" not in registry.backends
    assert report(registry, "good").state == "blocked"
    assert "lhama_test_good" not in sys.modules


def test_block_all_spares_our_own(install: Install) -> None:
    install("good", GOOD)
    registry = discover({BLOCK_ALL})
    assert report(registry, "good").state == "blocked"
    ours = [r for r in registry.reports if r.distribution == "lhama"]
    assert ours
    assert all(r.state != "blocked" for r in ours)


BROKEN = {
    "import_error": (
        "import no_such_module_anywhere\n",
        "No module named 'no_such_module_anywhere'",
    ),
    "exits": ("raise SystemExit(3)\n", "SystemExit: 3"),
    "raises": (
        """
        @hookimpl
        def lhama_register_backends(register):
            register(Backend("half"))
            raise RuntimeError("rained out")
        """,
        "RuntimeError: rained out",
    ),
    "misspelt": (
        """
        @hookimpl
        def lhama_register_backend(register):
            register(Backend("typo"))
        """,
        "unknown hook lhama_register_backend, did you mean lhama_register_backends?",
    ),
    "argument": (
        """
        @hookimpl
        def lhama_register_backends(register, extra):
            register(Backend("greedy"))
        """,
        "extra",
    ),
    "unmarked": (
        """
        def lhama_register_backends(register):
            register(Backend("shy"))
        """,
        "is @hookimpl missing?",
    ),
    "older": (
        """
        @hookimpl
        def lhama_register_backends(register):
            register(Backend("past", api_version=0))
        """,
        f"backend 'past' was written for version 0 of the plugin contract and this lhama speaks "
        f"version {API_VERSION}: update the plugin",
    ),
    "newer": (
        """
        @hookimpl
        def lhama_register_backends(register):
            register(Backend("future", api_version=99))
        """,
        "update lhama",
    ),
    "twice": (
        """
        @hookimpl
        def lhama_register_backends(register):
            register(Backend("echo"))
            register(Backend("echo"))
        """,
        "registers the backend 'echo' twice",
    ),
    "no_backend": (
        """
        @hookimpl
        def lhama_register_backends(register):
            register(object())
        """,
        "object has no name",
    ),
    "incomplete": (
        """
        @hookimpl
        def lhama_register_backends(register):
            backend = Backend("stump")
            backend.load = None
            register(backend)
        """,
        "lacks load",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_reported_and_hurts_nobody(install: Install, name: str) -> None:
    source, error = BROKEN[name]
    install(name, source)
    install("good", GOOD)
    registry = discover()
    failed = report(registry, name)
    assert failed.state == "failed"
    assert error in failed.error
    assert failed.backends == ()
    assert "half" not in registry.backends
    assert report(registry, "good").state == "loaded"
    assert "sunny" in registry.backends


FATAL = {
    "ends": ("import os; os._exit(0)\n", "it ended the process with status 0"),
    "crashes": (
        "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)\n",
        "it ended the process by SIGSEGV",
    ),
    "hangs": ("import time; time.sleep(1000)\n", "it did not load within 3 s"),
    "never_registers": (
        """
        @hookimpl
        def lhama_register_backends(register):
            import time
            time.sleep(1000)
        """,
        "it did not load within 3 s",
    ),
}


def test_what_no_try_could_catch_happens_elsewhere(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "LOAD_SECONDS", 3.0)
    for name, (source, _) in FATAL.items():
        install(name, source)
    install("raising", "raise RuntimeError('as ever')")
    registry = discover()
    for name, (_, error) in FATAL.items():
        assert report(registry, name).state == "failed"
        assert error in report(registry, name).error
        assert f"lhama_test_{name}" not in sys.modules
    assert report(registry, "raising").error == "RuntimeError: as ever"
    assert "reference" in registry.backends


def test_what_was_tried_is_not_tried_again(install: Install, tmp_path: Path) -> None:
    """A runner loads what the daemon has loaded, and nothing else."""
    counting = f"with open({str(tmp_path / 'count')!r}, 'a') as f:\n    f.write('x')\n"
    install("counted", counting + dedent(GOOD))
    first = discover()
    assert (tmp_path / "count").read_text() == "xx"
    registry = PluginManager().discover(first.others("sunny"), tried=True)
    assert list(registry.backends) == ["sunny"]


def test_a_slow_plugin_works_and_is_told_of(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager, "SLOW_SECONDS", 0.05)
    install("slow", "import time; time.sleep(0.1)\n" + dedent(GOOD))
    slow = report(discover(), "slow")
    assert slow.state == "loaded"
    [warning] = slow.warnings
    assert "s to load, at every start of lhama" in warning


def test_an_old_contract_that_is_still_spoken_is_told_of(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager, "OLDEST_API_VERSION", 0)
    install("older", BROKEN["older"][0])
    found = discover()
    assert "past" in found.backends
    assert report(found, "older").warnings == (
        "backend 'past' was written for version 0 of the plugin contract, which a later lhama will "
        f"not speak: update the plugin to version {API_VERSION}",
    )


def test_a_hook_that_will_go_is_told_of(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    def lhama_greet(name: str) -> None: ...

    text = "lhama_greet goes in 2.0: use lhama_register_backends"
    marked = hookspecs.hookspec(warn_on_impl=hookspecs.LhamaDeprecation(text))(lhama_greet)
    monkeypatch.setattr(hookspecs, "lhama_greet", marked, raising=False)
    install("polite", GOOD + "\n@hookimpl\ndef lhama_greet(name):\n    pass\n")
    found = discover()
    assert "sunny" in found.backends
    assert report(found, "polite").warnings == (text,)


def test_an_argument_that_will_go_is_told_of(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lhama_greet(name: str, title: str) -> None: ...

    gone = {"title": hookspecs.LhamaDeprecation("lhama_greet loses title in 2.0")}
    marked = hookspecs.hookspec(warn_on_impl_args=gone)(lhama_greet)
    monkeypatch.setattr(hookspecs, "lhama_greet", marked, raising=False)
    install("formal", GOOD + "\n@hookimpl\ndef lhama_greet(name, title):\n    pass\n")
    install("casual", GOOD.replace("sunny", "cloudy") + "\n@hookimpl\ndef lhama_greet(name): ...\n")
    found = discover()
    assert report(found, "formal").warnings == ("lhama_greet loses title in 2.0",)
    assert report(found, "casual").warnings == ()


def test_a_taken_backend_name_is_refused(install: Install) -> None:
    install("a", GOOD)
    install("b", GOOD)
    registry = discover()
    assert report(registry, "a").state == "loaded"
    assert report(registry, "b").error == "the backend name 'sunny' is taken by the plugin a"


def test_a_taken_plugin_name_is_refused(install: Install) -> None:
    install("a", GOOD, plugin="same")
    install("b", GOOD, plugin="same")
    registry = discover()
    assert report(registry, "same").distribution == "lhama-a"
    assert "taken by lhama-a" in report(registry, "same (lhama-b)").error


def test_an_optional_hook_of_a_later_version_is_fine(install: Install) -> None:
    install("modern", GOOD + "\n@hookimpl(optionalhook=True)\ndef lhama_from_2031(x):\n    pass\n")
    assert report(discover(), "modern").state == "loaded"


# ----------------------------------------------------------------------------------- the choice


class Choice:
    """A backend as far as choosing goes."""

    api_version = API_VERSION

    def __init__(self, name: str, score: int, reason: str = "", problem: str = "") -> None:
        self.name = name
        self._support = Support(score, reason)
        self._problem = problem

    def probe(self) -> Probe:
        return Probe(problem=self._problem)

    def supports(self, model: ModelFiles) -> Support:
        if self._support.score < 0:
            raise OSError(self._support.reason)
        return self._support

    def estimate(self, model: ModelFiles, options: LoadOptions) -> MemoryEstimate:
        raise NotImplementedError

    def load(self, model: ModelFiles, options: LoadOptions, progress: Progress) -> Engine:
        raise NotImplementedError


MODEL = ModelFiles("tiny", "/nowhere.gguf")


def registry_of(*backends: Choice, reports: tuple[PluginReport, ...] = ()) -> Registry:
    return Registry({b.name: b for b in backends}, reports)


def test_the_best_score_wins_and_the_first_of_equals() -> None:
    registry = registry_of(Choice("a", 50), Choice("b", 90), Choice("c", 90))
    backend, support = registry.able(MODEL)[0]
    assert (backend.name, support.score) == ("b", 90)


def test_verdicts_come_best_first() -> None:
    registry = registry_of(Choice("a", 50, "slow"), Choice("b", 0, "too small"), Choice("c", 90))
    verdicts = [(b.name, s.score, s.reason) for b, s in registry.verdicts(MODEL)]
    assert verdicts == [("c", 90, ""), ("a", 50, "slow"), ("b", 0, "too small")]
    assert [backend.name for backend, _ in registry.verdicts(MODEL, "b")] == ["b"]


def test_forcing_overrules_scores_but_not_refusals() -> None:
    registry = registry_of(Choice("a", 50), Choice("b", 90), Choice("c", 0, "too small"))
    assert registry.able(MODEL, "a")[0][0].name == "a"
    with pytest.raises(UnsupportedModel, match=r"c: too small$"):
        registry.able(MODEL, "c")


def test_refusals_name_every_reason() -> None:
    failed = PluginReport("d", "1", "lhama-d", "failed", error="ImportError: gone")
    registry = registry_of(
        Choice("a", 0, "unknown architecture 'x'"),
        Choice("b", 90, problem="install lhama[pytorch]"),
        Choice("c", -1, "unreadable"),
        reports=(failed,),
    )
    with pytest.raises(UnsupportedModel) as caught:
        registry.able(MODEL)
    assert str(caught.value) == (
        "no backend can run model 'tiny': a: unknown architecture 'x'; "
        "b: install lhama[pytorch]; c: supports failed: OSError: unreadable; "
        "d: plugin failed: ImportError: gone"
    )


def test_forcing_an_absent_backend_says_what_there_is() -> None:
    reports = (
        PluginReport("gone", "1", "x", "blocked"),
        PluginReport("bad", "1", "x", "failed", error="boom"),
    )
    registry = registry_of(Choice("a", 50), reports=reports)
    with pytest.raises(UnsupportedModel, match=r"no backend 'z' \(available: a\)"):
        registry.able(MODEL, "z")
    with pytest.raises(UnsupportedModel, match="'gone' is blocked by --no-plugins"):
        registry.able(MODEL, "gone")
    with pytest.raises(UnsupportedModel, match="'bad' failed to load: boom"):
        registry.able(MODEL, "bad")


# ----------------------------------------------------------------------- backends that misbehave


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("probe", "probe gave NoneType, not Probe"),
        ("supports", "supports gave NoneType, not Support"),
    ],
)
def test_an_answer_of_another_kind_is_a_refusal(
    monkeypatch: pytest.MonkeyPatch, method: str, said: str
) -> None:
    odd = Choice("odd", 50)
    monkeypatch.setattr(odd, method, lambda *arguments: None, raising=False)
    assert registry_of(odd).judge(odd, MODEL) == Support(0, said)
    assert registry_of(odd, Choice("b", 1)).able(MODEL)[0][0].name == "b"


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), MemoryError("all")])
def test_whatever_is_raised_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def probe() -> Probe:
        raise error

    bad = Choice("bad", 50)
    monkeypatch.setattr(bad, "probe", probe)
    assert registry_of(bad).probe(bad).problem == f"probe failed: {type(error).__name__}: {error}"


def test_who_does_not_answer_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "ANSWER_SECONDS", 0.1)
    awake, asked = threading.Event(), []

    def supports(model: ModelFiles) -> Support:
        asked.append(model)
        awake.wait()
        return Support(60)

    mute, other = Choice("mute", 0), Choice("other", 10)
    monkeypatch.setattr(mute, "supports", supports)
    registry = registry_of(mute, other)
    assert registry.able(MODEL)[0][0] is other
    assert registry.judge(mute, MODEL).reason.startswith("it still does not answer")
    assert len(asked) == 1
    awake.set()
    for thread in threading.enumerate():
        if thread.name == "mute.supports":
            thread.join()
    assert registry.able(MODEL)[0][0] is mute


def test_an_estimate_that_is_none_is_an_error() -> None:
    odd = Choice("odd", 50)
    with pytest.raises(BackendError, match="estimate failed: NotImplementedError"):
        registry_of(odd).estimate(odd, MODEL, LoadOptions())


# ------------------------------------------------------------------------------------ the hooks

HOOKS = [name for name in vars(hookspecs) if name.startswith("lhama_")]
GUIDE = Path(__file__).parents[2] / "docs" / "plugin-authors.md"


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_has_an_example_and_a_section_in_the_guide(name: str) -> None:
    docstring = getattr(hookspecs, name).__doc__ or ""
    assert "Example::" in docstring
    assert "@hookimpl" in docstring
    assert f"### `{name}`" in GUIDE.read_text()
