"""The table of clients in docs/compatibility.md names what is checked, in the versions installed.

Its results are those of a run: scripts/client-table writes it.
"""

from __future__ import annotations

import json
import re

from lhama_testing_clients import GROUPS, HERE, Program
from test_request_shapes import APPLICATIONS

DOCS = HERE.parents[1] / "docs" / "compatibility.md"


def _rows() -> dict[str, tuple[str, str]]:
    """Versions and checks by the client's name."""
    _, _, rest = DOCS.read_text().partition("<!-- clients: begin -->")
    table, end, _ = rest.partition("<!-- clients: end -->")
    assert end, "docs/compatibility.md has no table of clients"
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in table.split("\n") if line]
    return {name: (versions, checks) for name, versions, checks, _ in cells[2:]}


def _pinned(program: Program) -> set[str]:
    """The program's packages with the versions its requirements pin."""
    (group,) = [group for group in GROUPS if program in group.programs]
    text = group.requirements.read_text()
    if group.name == "node":
        pins = json.loads(text)["dependencies"]
    else:
        pins = dict(re.findall(r"^([\w-]+)(?:\[\w+\])?==([\d.]+)$", text, re.MULTILINE))
    return {f"{package} {pins[package]}" for package in program.packages}


def test_the_table_names_every_client_and_check() -> None:
    rows = _rows()
    programs = {p.client: p for group in GROUPS for p in group.programs}
    assert set(rows) == {*programs, *APPLICATIONS}
    for client, (versions, checks) in rows.items():
        if program := programs.get(client):
            assert set(versions.split(", ")) == _pinned(program)
            assert checks.split("; ") == program.checks
        else:
            application = APPLICATIONS[client]
            assert versions == f"requests of {application.source}"
            assert checks.split("; ") == list(application.checks)
