"""A virtual environment for a test alone: what it installs there is seen by nobody else."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path


class Environment:
    """Sees this environment's packages, so nothing is installed twice; ``lhama`` is its own."""

    def __init__(self, folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        self.bin = folder / "bin"
        self.python = str(self.bin / "python")
        self.packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
        ours = sysconfig.get_path("purelib")
        (self.packages / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
        command = self.bin / "lhama"
        command.write_text(f"#!{self.python}\nfrom lhama.daemon.cli import main\n\nmain()\n")
        command.chmod(0o755)

    def variables(self, **more: str) -> dict[str, str]:
        """The environment of a shell in which it is active."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("OLLAMA_", "LHAMA_"))}
        if find_spec("setuptools"):
            kept["PIP_NO_BUILD_ISOLATION"] = "0"  # pip's way of saying that there shall be none
        own = {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "LHAMA_CONFIG": "",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }
        return kept | own | more

    def run(self, *command: str, **more: str) -> str:
        """What a command of it prints; ``AssertionError`` with that if it fails."""
        done = subprocess.run(
            [self.python, *command],
            env=self.variables(**more),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def lhama(self, *arguments: str, **more: str) -> str:
        """What the command line prints."""
        return self.run("-m", "lhama.daemon.cli", *arguments, **more)
