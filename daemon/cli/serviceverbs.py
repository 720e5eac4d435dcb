"""The verbs of ``lhama service`` and their options."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from lhama.daemon.config import Settings

FOR_ALL = hasattr(os, "geteuid") and os.geteuid() == 0
"""Whose service it is where nobody says: the machine's for root."""

service = typer.Typer(no_args_is_help=True, help="Run the daemon in the background, for good.")

System = Annotated[
    bool,
    typer.Option(
        "--system/--user",
        help="For the machine, or for this user.",
        show_default="machine for root",
    ),
]


@service.command(short_help="Describe the service, start it now and at every boot.")
def install(
    system: System = FOR_ALL,
    show: Annotated[bool, typer.Option("--print", help="Show it, install nothing.")] = False,
) -> None:
    """Write a systemd unit or a launchd agent, and start it now and at every boot or login.

    OLLAMA_* and LHAMA_* variables that are set now become the service's.
    """
    from lhama.daemon.cli import output
    from lhama.daemon.cli import service as services

    settings = Settings.from_environment()
    if show:
        output.say(services.text(settings, system=system))
    else:
        services.install(settings, system=system)


@service.command()
def uninstall(system: System = FOR_ALL) -> None:
    """Stop the service and remove it. Models stay."""
    from lhama.daemon.cli import service as services

    services.uninstall(system=system)


@service.command()
def status(system: System = FOR_ALL) -> None:
    """Show whether the service runs."""
    from lhama.daemon.cli import service as services

    raise typer.Exit(services.status(system=system))


@service.command()
def logs(
    system: System = FOR_ALL,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on showing.")] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", metavar="N", min=0, help="Of the past.")
    ] = 100,
) -> None:
    """Show the service's log."""
    from lhama.daemon.cli import service as services

    raise typer.Exit(services.logs(system=system, follow=follow, lines=lines))
