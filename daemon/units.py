"""Descriptions of the daemon as a background service: a systemd unit, a launchd agent."""

from __future__ import annotations

import plistlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lhama.daemon.durations import SECOND, Duration

NAME = "lhama"
LABEL = "org.lhama.daemon"

WATCHDOG = 60
"""Seconds without progress after which systemd starts the daemon anew."""

LAST_WORDS = 15
"""Seconds beyond the daemon's own grace before systemd kills it."""

FILES = 65_536
"""Connections and files at once."""


@dataclass(frozen=True, slots=True)
class Unit:
    """What both descriptions are made of."""

    command: Sequence[str]
    environment: Mapping[str, str]
    grace: Duration
    system: bool = False
    """For the machine, started at boot; else for one user."""
    writable: tuple[Path, ...] = ()
    """Folders that a user's daemon writes to: its store, its key, its caches."""
    groups: tuple[str, ...] = ()
    """Of this machine, that may use its graphics cards: systemd starts nothing with one unknown."""
    helper: str = ""
    """NVIDIA's setuid program that makes the card's device nodes at first use, where there is one. The
    daemon could not gain its privileges (``NoNewPrivileges``), so it is run before."""

    def systemd(self) -> str:
        """The text of ``lhama.service``. No ``PrivateDevices``: the graphics card is one; no
        ``MemoryDenyWriteExecute``: kernels are compiled while it runs."""
        lines = [
            "[Unit]",
            "Description=lhama, language models behind the Ollama API",
            "Documentation=https://docs.ollama.com/api",
            "StartLimitIntervalSec=60",
            "StartLimitBurst=5",
            *(["After=network-online.target", "Wants=network-online.target"] * self.system),
            "",
            "[Service]",
            "Type=notify",
            "NotifyAccess=main",
            f"ExecStart={' '.join(map(_quoted, self.command))}",
            *(f"Environment={_quoted(f'{k}={v}')}" for k, v in sorted(self.environment.items())),
            "Restart=always",
            "RestartSec=3",
            f"WatchdogSec={WATCHDOG}",
            "WatchdogSignal=SIGKILL",
            "TimeoutStartSec=120",
            f"TimeoutStopSec={self.grace // SECOND + LAST_WORDS}",
            "KillMode=mixed",
            "OOMPolicy=continue",
            f"LimitNOFILE={FILES}",
            "LimitCORE=0",
            "UMask=0077",
            "NoNewPrivileges=yes",
            "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
            "RestrictNamespaces=yes",
            "RestrictRealtime=yes",
            "RestrictSUIDSGID=yes",
            "LockPersonality=yes",
            "SystemCallArchitectures=native",
            "SystemCallFilter=@system-service",
            "SystemCallErrorNumber=EPERM",
            *(self._of_machine() if self.system else self._of_user()),
            "",
            "[Install]",
            f"WantedBy={'multi-user' if self.system else 'default'}.target",
        ]
        return "\n".join(lines) + "\n"

    def _of_machine(self) -> list[str]:
        return [
            *_SYSTEM,
            *([f"SupplementaryGroups={' '.join(self.groups)}"] * bool(self.groups)),
            *([f"ExecStartPre=-+{_quoted(self.helper)} -u -c=0"] * bool(self.helper)),
        ]

    def _of_user(self) -> list[str]:
        # What needs privileges to set up would keep a user's unit from starting on older systems.
        return [f"ReadWritePaths=-{_quoted(str(path))}" for path in self.writable]

    def launchd(self, logs: Path) -> bytes:
        """The property list of a launch agent."""
        agent = {
            "Label": LABEL,
            "ProgramArguments": list(self.command),
            "EnvironmentVariables": dict(self.environment),
            "RunAtLoad": True,
            "KeepAlive": True,
            "ThrottleInterval": 3,
            "ExitTimeOut": self.grace // SECOND + LAST_WORDS,
            "ProcessType": "Interactive",
            "SoftResourceLimits": {"NumberOfFiles": 8192},
            "StandardOutPath": str(logs),
            "StandardErrorPath": str(logs),
        }
        return plistlib.dumps(agent)


_SYSTEM = (
    "DynamicUser=yes",
    "StateDirectory=lhama",
    "CacheDirectory=lhama",
    "ProtectSystem=strict",
    "ProtectHome=read-only",
    "PrivateTmp=yes",
    "ProtectClock=yes",
    "ProtectControlGroups=yes",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "ProtectProc=invisible",
    "CapabilityBoundingSet=",
    "AmbientCapabilities=",
    "RemoveIPC=yes",
)


def _quoted(text: str) -> str:
    """A word as systemd reads it; ``%`` and ``$`` stand for themselves."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if set(text) & set(" \t\"'\\;") else escaped
