"""The interface of trackers and their registry."""
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from spanbert_jax.common.registry import Registry

# Values by name: numbers, texts, None for a number that is not finite, or lists of these.
Metrics = Mapping[str, Any]


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
