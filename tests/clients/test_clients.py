"""Real clients, unmodified, from their registries: each a few real calls against a real daemon."""

from __future__ import annotations

import pytest
from conftest import Run
from lhama_testing_clients import GROUPS

CHECKS = [
    pytest.param(group.name, program.name, check, id=f"{program.name}: {check}")
    for group in GROUPS
    for program in group.programs
    for check in program.checks
]


@pytest.mark.timeout(1500)  # the first one waits for all to be installed
@pytest.mark.parametrize(("group", "program", "check"), CHECKS)
def test_client(client_run: Run, group: str, program: str, check: str) -> None:
    outcome = client_run.outcome(group, program, check)
    assert not outcome.problem, outcome.problem
