"""Trackers: their interface, their registry, and the writer of metrics to all trackers of a run."""
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, Self

from spanbert_jax.cluster.agreement import is_process_zero
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.registry import Registry
from spanbert_jax.training.trackers.json_lines import JsonLines
from spanbert_jax.training.trackers.record_file import Metrics


class Tracker(Protocol):
    """Receives the metrics of a run, on process zero only.

    A registered tracker is a function (workdir, first_step) -> Tracker. `first_step` is the number of updates done
    before: a resumed run repeats what it did after that step, so a tracker should drop later metrics.
    """

    def write(self, step: int, kind: str, metrics: Metrics) -> None:
        """Writes metrics after `step` updates; `kind` is "train", "evaluation" or "goodput".

        What it raises is reported once and does not end the run.
        """

    def close(self) -> None:
        """Writes what is still buffered."""


TRACKERS: Registry[Callable[[pathlib.Path, int], Tracker]] = Registry("tracker", "trackers", {
    "json_lines": "spanbert_jax.training.trackers.json_lines:JsonLines",
    "tensorboard": "spanbert_jax.training.trackers.tensorboard:TensorBoard"})


class MetricsWriter:
    """Writes metrics by step; a context manager. Processes other than zero write nothing.

    Metrics that a full disk or a vanished folder does not take are kept, and written in order at the next chance.
    """

    def __init__(self, workdir: str | pathlib.Path, first_step: int = 0, trackers: Sequence[str] = ("tensorboard",),
                 log: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True)):
        """Opens the trackers. `evaluations` are the evaluations so far by step, those of earlier attempts included.

        Args:
          first_step: updates done before; metrics of later steps are dropped.
          trackers: names in `TRACKERS`, used besides "json_lines".
          log: called once when metrics cannot be written, and once when they can again.

        Raises:
          UserError: a tracker is unknown, or its files cannot be opened.
        """
        self._workdir, self._log, self._failure = pathlib.Path(workdir), log, ""
        self._trackers: dict[str, Tracker] = {}
        self.evaluations: Mapping[int, Metrics] = {}
        if is_process_zero():
            for name in trackers:
                if name != "json_lines":
                    self._trackers[name] = self._open(name, first_step)
            lines = JsonLines(self._workdir, first_step)  # last, because it changes its file and others may raise
            self._trackers["json_lines"], self.evaluations = lines, lines.evaluations

    def _open(self, name: str, first_step: int) -> Tracker:
        try:
            return TRACKERS.get(name)(self._workdir, first_step)
        except UserError:
            raise
        except Exception as error:  # a tracker of another package may raise anything
            raise UserError(f"config.trackers: {name!r} cannot be opened ({type(error).__name__}: "
                            f"{' '.join(str(error).split())}); fix it, or leave it out") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._call_trackers(lambda tracker: tracker.close())
        if self._failure:
            self._log(f"METRICS LOST: until the end of the run they could not be written ({self._failure})")

    def write(self, step: int, kind: str, metrics: Metrics) -> None:
        """Writes metrics after `step` updates; `kind` is "train", "evaluation" or "goodput"."""
        self._call_trackers(lambda tracker: tracker.write(step, kind, metrics))

    def _call_trackers(self, call: Callable[[Tracker], None]) -> None:
        failure = ""
        for name, tracker in self._trackers.items():
            try:
                call(tracker)
            except Exception as error:  # a tracker of another package may raise anything
                reason = (f"{error.filename or self._workdir}: {error.strerror}" if isinstance(error, OSError)
                          else f"{type(error).__name__}: {error}")
                failure = failure or f"{name}: {' '.join(reason.split())}"
        if bool(failure) == bool(self._failure):
            return
        self._failure = failure
        if failure:
            self._log(f"METRICS CANNOT BE WRITTEN ({failure}): training continues, and they are kept until then")
        else:
            self._log("Metrics are written again, with those kept meanwhile.")
