"""``lhama service``: the daemon as something that is installed and forgotten."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import lhama.daemon
from lhama.daemon.cli import output
from lhama.daemon.config import Settings
from lhama.daemon.errors import LhamaError
from lhama.daemon.units import LABEL, NAME, Unit

KEPT = ("OLLAMA_", "LHAMA_", "HF_TOKEN", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
"""Beginnings of the variables that the service gets from who installs it."""

CARDS = ("video", "render")
"""Groups that may use graphics cards."""

SYSTEM_STATE = Path("/var/lib/lhama")
SYSTEM_CACHE = Path("/var/cache/lhama")


class ServiceError(LhamaError):
    """The service manager refused, or there is none."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a service is described, and who is asked about it."""

    path: Path
    manager: tuple[str, ...]

    @property
    def mac(self) -> bool:
        return self.manager[0] == "launchctl"


def place(*, system: bool) -> Place:
    home = Path.home()
    if sys.platform == "darwin":
        return Place(home / "Library/LaunchAgents" / f"{LABEL}.plist", ("launchctl",))
    if system:
        return Place(Path("/etc/systemd/system") / f"{NAME}.service", ("systemctl",))
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    return Place(config / "systemd/user" / f"{NAME}.service", ("systemctl", "--user"))


def describe(settings: Settings, *, system: bool) -> Unit:
    """The service as it would be installed here and now."""
    environment = {k: v for k, v in os.environ.items() if k.startswith(KEPT)}
    if system:
        # A user of its own, made at each start, with folders that stay.
        environment = {
            "OLLAMA_MODELS": str(SYSTEM_STATE / "models"),
            "HOME": str(SYSTEM_STATE),
            "XDG_CACHE_HOME": str(SYSTEM_CACHE),
            **environment,
        }
    command = (sys.executable, "-m", "lhama.daemon.cli", "serve")
    folders = (settings.models, settings.identity.parent, Path.home() / ".cache")
    return Unit(
        command,
        environment,
        settings.shutdown_grace,
        system=system,
        writable=folders,
        groups=tuple(filter(_is_group, CARDS)),
        helper=shutil.which("nvidia-modprobe") or "",
    )


def text(settings: Settings, *, system: bool) -> str:
    """The description itself."""
    unit = describe(settings, system=system)
    if place(system=system).mac:
        return unit.launchd(_mac_log()).decode()
    return unit.systemd()


def install(settings: Settings, *, system: bool) -> None:
    """Write the description, start the service, and have it started at boot or login."""
    where = place(system=system)
    if system and not where.mac:
        _for_everybody(Path(sys.executable), Path(lhama.daemon.__file__))
    where.path.parent.mkdir(parents=True, exist_ok=True)
    # Keys may be among the variables: nobody else reads them.
    descriptor = os.open(where.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text(settings, system=system))
    output.say(f"wrote {where.path}")
    if where.mac:
        _ask(where, "bootstrap", f"gui/{os.getuid()}", str(where.path))
    else:
        _ask(where, "daemon-reload")
        _ask(where, "enable", "--now", NAME)
    output.say(f"lhama runs, and will: {settings.url}")
    if not system and not where.mac:
        output.say("while you are logged out, too: loginctl enable-linger")


def uninstall(*, system: bool) -> None:
    """Stop the service and remove its description. Models stay."""
    where = place(system=system)
    if not where.path.exists():
        raise ServiceError(f"no service is installed: {where.path} does not exist")
    if where.mac:
        _ask(where, "bootout", f"gui/{os.getuid()}/{LABEL}")
    else:
        _ask(where, "disable", "--now", NAME)
    where.path.unlink()
    if not where.mac:
        _ask(where, "daemon-reload")
    output.say(f"removed {where.path}; models are where they were")


def status(*, system: bool) -> int:
    """Show what the service manager knows; its exit status."""
    where = place(system=system)
    if where.mac:
        return _show(where.manager[0], "print", f"gui/{os.getuid()}/{LABEL}")
    return _show(*where.manager, "status", "--no-pager", NAME)


def logs(*, system: bool, follow: bool, lines: int) -> int:
    """Show the daemon's log; the exit status of what shows it."""
    where = place(system=system)
    if where.mac:
        return _show("tail", *(["-f"] * follow), "-n", str(lines), str(_mac_log()))
    whose = ("-u", NAME) if system else ("--user", "-u", NAME)
    return _show("journalctl", *whose, "-n", str(lines), *(["-f"] * follow))


def _is_group(name: str) -> bool:
    import grp  # not on Windows

    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def _for_everybody(*needed: Path) -> None:
    """The machine's service has a user of its own, who must get at what it runs."""
    for path in needed:
        whole = path.resolve()
        for part in (*reversed(whole.parents), whole):
            if not part.stat().st_mode & (0o001 if part.is_dir() else 0o004):
                raise ServiceError(
                    f"{part} is closed to others, and the service needs {whole}: "
                    "install lhama somewhere else, such as in a virtual environment below /opt"
                )


def _mac_log() -> Path:
    return Path.home() / "Library/Logs" / f"{NAME}.log"


def _ask(where: Place, *words: str) -> None:
    command = (*where.manager, *words)
    try:
        ran = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise ServiceError(
            f"{command[0]} is not here: run 'lhama serve' under what starts programs on this machine"
        ) from None
    if ran.returncode:
        raise ServiceError(f"{' '.join(command)}: {ran.stderr.strip() or ran.stdout.strip()}")


def _show(*command: str) -> int:
    try:
        return subprocess.run(command).returncode
    except FileNotFoundError:
        raise ServiceError(f"{command[0]} is not here") from None
