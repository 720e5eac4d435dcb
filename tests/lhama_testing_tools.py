"""A plugin with tools that do what no tool should, in a distribution of its own."""

from __future__ import annotations

from pathlib import Path

PLUGIN = """
import os, signal, sys, time
from lhama.plugins import hookimpl
from lhama.plugins.backend import API_VERSION, Support, UnsupportedModel


class Tool:
    name, api_version = "odd", API_VERSION

    def supports(self, source, kind=""):
        if "odd" not in source or kind == "COPY":
            return Support(0, "it is not odd")
        return Support(50)

    def quantize(self, source, target, kind, progress):
        progress(0.25, "a quarter")
        getattr(self, kind.lower())(target)
        progress(1.0, "")

    def convert(self, folder, target, progress):
        raise UnsupportedModel("not this one")

    def convert_adapter(self, folder, base, target, progress):
        raise KeyError("rank")

    def environment(self, target):
        with open("/proc/self/environ", "rb") as file:
            native = file.read().decode().split("\\0")
        lines = [f"{key}={value}" for key, value in os.environ.items()]
        with open(target, "w") as file:
            file.write("\\n".join([*native, *lines, os.getcwd()]))

    def chatter(self, target):
        print("noise on standard output")
        os.write(1, b"\\xff" * 100_000)
        sys.stdout.flush()

    def segfault(self, target):
        os.kill(os.getpid(), signal.SIGSEGV)

    def leave(self, target):
        os._exit(7)

    def quit(self, target):
        raise SystemExit(0)

    def fail(self, target):
        raise UnsupportedModel("this is not a model")

    def crash(self, target):
        {}["missing"]

    def full(self, target):
        raise OSError(28, "No space left on device")

    def nonsense(self, target):
        for fd in range(3, 20):  # one of them is the daemon's
            try:
                os.write(fd, b"\\x02\\x00\\x00\\x00\\xc1\\xc1")
            except OSError:
                pass

    def hang(self, target):
        time.sleep(1000)

    q8_0 = hang

    def write_on(self, target):
        for n in range(2):
            time.sleep(2)
            with open(target, "ab") as file:
                file.write(b"x")


@hookimpl
def lhama_register_quantizers(register):
    register(Tool())


@hookimpl
def lhama_register_converters(register):
    register(Tool())
"""


def install(folder: Path) -> Path:
    """Write the distribution; ``folder`` on PYTHONPATH makes it found, in child processes too.

    Its quantiser and converter take what has "odd" in its path.
    """
    info = folder / "lhama_odd-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lhama-odd\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[lhama]\nodd = lhama_odd_tools\n")
    (folder / "lhama_odd_tools.py").write_text(PLUGIN)
    return folder
