"""A progress bar on a terminal, a plain line now and then elsewhere."""
import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LINES = 15.0


class ProgressBar:
    """Shows how far a job of `total` units is, on standard error. A context manager.

    Args:
      label: what is being done.
      total: units in all; None if not known.
      unit: name of the unit.
      shown: False shows nothing.
    """

    def __init__(self, label: str, total: int | None, unit: str, shown: bool):
        self._label, self._total, self._unit, self._shown = label, total, unit, shown
        self._done, self._said = 0, time.monotonic()
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
        elif self._shown and time.monotonic() - self._said > _SECONDS_BETWEEN_LINES:
            self._said = time.monotonic()
            share = f" ({self._done / self._total:.0%})" if self._total else ""
            print(f"{self._label}: {self._done:,} {self._unit}{share}", file=sys.stderr, flush=True)
