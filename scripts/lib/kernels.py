"""llama.cpp's processor kernels as the recorded server had them: compiled for AVX2, not for this machine.

Floating-point sums depend on how many numbers a register holds, so texts at temperature 0 can be
compared letter by letter only where they were computed by the same kernels.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "recorded-kernels"
LIBRARIES = ("libggml-base", "libggml-cpu")


class CannotBuild(Exception):
    """What is missing."""


def recorded() -> Path:
    """A folder for the front of ``PYTHONPATH``: ``llama_cpp`` with those kernels. Made once, which
    takes some minutes. Raises ``CannotBuild``."""
    if platform.machine() not in ("x86_64", "AMD64"):
        raise CannotBuild(
            f"the recorded kernels are an x86 processor's, this is {platform.machine()}"
        )
    version = importlib.metadata.version("llama-cpp-python")
    done = FOLDER / version / "python"
    if done.is_dir():
        return done
    if shutil.which("cmake") is None:
        raise CannotBuild("cmake is missing: on Debian and Ubuntu, 'sudo apt install cmake g++'")
    sources = _sources(version)
    compiled = FOLDER / version / "compiled"
    options = ("-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=ON", "-DGGML_NATIVE=OFF")
    options += ("-DLLAMA_CURL=OFF", "-DLLAMA_BUILD_COMMON=OFF", "-DLLAMA_BUILD_TOOLS=OFF")
    options += ("-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF")
    _run("cmake", "-S", str(sources), "-B", str(compiled), *options)
    print("Compiling llama.cpp's kernels for AVX2: some minutes", flush=True)
    _run("cmake", "--build", str(compiled), "--target", "ggml-cpu", "--parallel", "2")
    installed = importlib.util.find_spec("llama_cpp")
    assert installed is not None
    assert installed.origin is not None
    fresh = done.with_name("unfinished")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(Path(installed.origin).parent, fresh / "llama_cpp")
    for name in LIBRARIES:
        (library,) = (f for f in (compiled / "bin").glob(f"{name}.so.*.*.*") if not f.is_symlink())
        for old in (fresh / "llama_cpp" / "lib").glob(f"{name}.so*"):
            old.unlink()
            shutil.copy(library, old)
    fresh.rename(done)
    return done


def _sources(version: str) -> Path:
    """llama.cpp as the installed binding has it: from the binding's source distribution."""
    folder = FOLDER / version
    folder.mkdir(parents=True, exist_ok=True)
    print(f"Fetching the sources of llama-cpp-python {version}", flush=True)
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder))
    _run(*pip, "--no-binary", "llama-cpp-python", f"llama-cpp-python=={version}")
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz") / "vendor" / "llama.cpp"


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise CannotBuild(f"{' '.join(command)} failed:\n{tail}")
