"""What a transfer shows at a terminal: one line for each step, a bar for each blob, top to bottom.

Imports rich, so it is imported only when something is shown.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.spinner import Spinner
from rich.text import Text


class Board(Progress):
    """Steps and bars in the order in which they came; the last step spins while it lasts."""

    def __init__(self, console: Console) -> None:
        super().__init__(
            TextColumn("{task.description}"),
            TextColumn("{task.percentage:>3.0f}%"),
            BarColumn(bar_width=None),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
            expand=True,
        )
        self._spinner = Spinner("dots")
        self._step: TaskID | None = None

    def step(self, text: str) -> None:
        """A line of its own; the step before it is over."""
        self.end_step()
        self._step = self.add_task(text, total=None)

    def end_step(self) -> None:
        if self._step is not None:
            self.stop_task(self._step)
            self._step = None

    def get_renderables(self) -> Iterable[RenderableType]:
        for task in self.tasks:
            yield self._step_line(task) if task.total is None else self.make_tasks_table([task])

    def _step_line(self, task: Task) -> RenderableType:
        spinning = f" {self._spinner.render(self.get_time())}" if task.id == self._step else ""
        return Text(task.description + spinning)
