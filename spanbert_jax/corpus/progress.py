"""Progress of long jobs: a bar on a terminal, otherwise a line every few seconds."""
import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LINES = 15.0


class ProgressBar:
    """Shows the progress of a job on standard error. A context manager."""

    def __init__(self, label: str, total: int | None, unit: str, shown: bool):
        """Creates a bar for `total` units (None if unknown), such as "characters"; not `shown`, it prints nothing."""
        self._label, self._total, self._unit, self._shown = label, total, unit, shown
        self._done, self._last_line = 0, time.monotonic()
        self._bar = None
        if shown and sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
                TextColumn("{task.completed:,.0f} " + unit), TimeRemainingColumn(), console=Console(stderr=True))
            self._task = self._bar.add_task(label, total=total)

    def __enter__(self) -> "ProgressBar":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *unused: object) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self, amount: int) -> None:
        """Adds finished units."""
        self._done += amount
        if self._bar:
            self._bar.advance(self._task, amount)
        elif self._shown and time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            share = f" ({self._done / self._total:.0%})" if self._total else ""
            print(f"{self._label}: {self._done:,} {self._unit}{share}", file=sys.stderr, flush=True)
