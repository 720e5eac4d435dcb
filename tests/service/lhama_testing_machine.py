"""A machine with a running systemd, in namespaces of its own over this one's files."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

SYSTEMD = Path("/lib/systemd/systemd")

EMPTY = ("/run", "/tmp", "/dev")
"""Folders that are not this machine's."""

BOOT = r"""
set -e
# A group of processes of its own: what systemd takes for the root of all.
mkdir cgroup tree
mount -t cgroup2 cgroup2 cgroup
mkdir cgroup/lhama-test-$$
echo $$ > cgroup/lhama-test-$$/cgroup.procs
mount -t tmpfs -o size=1g tmpfs tree
cd tree
mkdir upper work root
mount -t overlay overlay -o lowerdir=/,upperdir=$PWD/upper,workdir=$PWD/work root
cd root
exec unshare --pid --uts --ipc --cgroup --fork bash -c '
    set -e
    mount -t proc proc proc
    mount -t sysfs -o ro sysfs sys
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    for folder in run tmp dev; do mount -t tmpfs tmpfs $folder; done  # as EMPTY says
    mkdir -p dev/shm before
    for node in null zero full random urandom; do
        touch dev/$node
        mount --bind /dev/$node dev/$node
    done
    pivot_root . before
    umount -l before
    test "$(stat -f -c %T /)" = overlayfs  # what follows is for the layer above only
    for path in "$@"; do chmod a+rx "$path"; done  # what the tests run on may be closed to others
    # Nothing of this machine is started again, not its network above all.
    rm -rf /lib/systemd/system/*.wants /usr/lib/systemd/system/*.wants /etc/systemd/system/* /etc/fstab
    printf "[Unit]\nRequires=systemd-journald.service basic.target\n" > /etc/systemd/system/lhama-test.target
    exec env -i PATH="$PATH" container=lhama \
        SYSTEMD_PROC_CMDLINE="systemd.unified_cgroup_hierarchy=1 systemd.log_target=null" \
        /lib/systemd/systemd --system --unit=lhama-test.target --show-status=no
' boot "$@"
"""
"""Files, processes, names and groups of processes are the machine's own; the network is this one's."""


class Machine:
    """Commands run in it as root. Nothing that they write stays."""

    def __init__(self, init: psutil.Process) -> None:
        self._enter = ["nsenter", "-t", str(init.pid), "-m", "-p", "-u", "-i", "-C", "env", "-i"]

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        given = {"HOME": "/root", "PATH": os.environ["PATH"], **environment}
        enter = [*self._enter, *(f"{name}={value}" for name, value in given.items())]
        return subprocess.run([*enter, *command], capture_output=True, text=True, timeout=90)

    def lhama(self, *arguments: str, **environment: str) -> str:
        """Standard output of a command that must succeed."""
        ran = self.run(sys.executable, "-m", "lhama.daemon.cli", *arguments, **environment)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def property(self, name: str) -> str:
        """What systemd knows of the service."""
        return self.run("systemctl", "show", "lhama", "-p", name, "--value").stdout.strip()


@contextlib.contextmanager
def booted(folder: Path) -> Iterator[Machine]:
    """Skips where systemd is not there, or where it may not run."""
    missing = [name for name in ("unshare", "nsenter", "systemctl") if not shutil.which(name)]
    if missing or not SYSTEMD.exists() or os.geteuid():
        pytest.skip("a running systemd needs root and Debian's systemd and util-linux")
    needed = [Path(sys.executable), Path(__file__)]
    if any(path.is_relative_to(empty) for path in needed for empty in EMPTY):
        pytest.skip(f"its own {', '.join(EMPTY)} are empty: the checkout has to lie elsewhere")
    closed = {parent for path in needed for parent in path.resolve().parents}
    with (folder / "boot.log").open("wb") as log:
        outside = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "bash", "-c", BOOT, "boot"]
            + [str(path) for path in sorted(closed) if not path.stat().st_mode & 0o001],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield Machine(_init(outside, folder / "boot.log"))
    finally:
        for process in _children(outside):
            process.kill()  # the first process of its namespace takes all others along
        outside.wait(30)
        _remove_groups(folder, f"lhama-test-{outside.pid}")


def _init(outside: subprocess.Popen[bytes], log: Path) -> psutil.Process:
    """The machine's first process, once it serves."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and outside.poll() is None:
        for child in _children(outside):
            with contextlib.suppress(psutil.Error):
                if child.name() == "systemd":
                    ran = Machine(child).run("systemctl", "is-active", "lhama-test.target")
                    if ran.stdout.strip() == "active":
                        return child
        time.sleep(0.1)
    pytest.skip(f"systemd does not run here: {log.read_text()[-300:]}")


def _children(outside: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        return psutil.Process(outside.pid).children()
    except psutil.Error:  # it has given up
        return []


def _remove_groups(folder: Path, name: str) -> None:
    script = (
        f"mount -t cgroup2 cgroup2 cgroup && find cgroup/{name} -depth -type d -exec rmdir {{}} +"
    )
    subprocess.run(["unshare", "--mount", "bash", "-c", script], cwd=folder, capture_output=True)
