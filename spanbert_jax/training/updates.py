"""Reads the metrics of each update, checks that training may continue, and logs them."""
import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping

import jax
import numpy as np

from spanbert_jax.checkpoints import Checkpointer
from spanbert_jax.cluster.agreement import gather
from spanbert_jax.cluster.stopping import StopRequest
from spanbert_jax.common.errors import RunFailed
from spanbert_jax.training.display import TrainingProgress
from spanbert_jax.training.experiment import Experiment
from spanbert_jax.training.goodput import Goodput
from spanbert_jax.training.profiling import Profiler
from spanbert_jax.training.trackers import MetricsWriter

_ROWS_SHOWN = 10  # of a batch, in messages
_AVERAGED = ("loss", "accuracy")  # ends of the names of metrics that a line holds the means of


@dataclasses.dataclass(frozen=True)
class Services:
    """What the training loop of one attempt uses besides the experiment. Signals must be deferred in `stop`."""
    checkpointer: Checkpointer
    metrics: MetricsWriter
    progress: TrainingProgress
    stop: StopRequest
    goodput: Goodput
    profiler: Profiler


class Interval:
    """The updates since the last line of metrics: speeds, and means of losses and accuracies."""

    def __init__(self, spent: Callable[[], float]):
        """Args: spent: returns the seconds spent in updates so far."""
        self._spent = spent
        self.reset()

    def reset(self) -> None:
        """Starts a new interval."""
        self._since, self._updates, self._batches, self._tokens = self._spent(), 0, 0.0, 0.0
        self._values: dict[str, list[float]] = {}

    def add(self, metrics: Mapping[str, float], skipped: bool = False, share: float = 1.0) -> None:
        """Counts an update of a share of the batch with its metrics; the means leave out a skipped one."""
        self._updates += 1
        self._batches += share
        self._tokens += metrics["tokens"]
        for name, value in metrics.items():
            if name.endswith(_AVERAGED) and not skipped:
                self._values.setdefault(name, []).append(value)

    def means(self) -> dict[str, float]:
        """Mean of each loss and accuracy over the updates of the interval."""
        return {name: math.fsum(values) / len(values) for name, values in self._values.items()}

    def speeds(self, flops: float) -> dict[str, float]:
        """Speeds over the updates of the interval, of `flops` operations for a full batch."""
        seconds = max(self._spent() - self._since, 1e-9)
        return {"seconds_per_step": seconds / self._updates, "tokens_per_second": self._tokens / seconds,
                "model_flops_per_second": flops * self._batches / seconds}


class UpdateReporter:
    """Reports one update at a time, usually while the devices compute the next one."""

    def __init__(self, experiment: Experiment, services: Services):
        self._config, self._flops = experiment.config, experiment.workload.flops
        self._describe_row = experiment.workload.describe_row
        self._total, self._services, self._warmup = experiment.total_steps, services, experiment.batch_warmup
        self._interval = Interval(lambda: services.goodput.spent("steps", "data"))
        self._pending: tuple[int, np.ndarray, dict[str, jax.Array], jax.Array] | None = None

    def submit(self, step: int, indices: np.ndarray, metrics: dict[str, jax.Array], row_losses: jax.Array) -> None:
        """Takes an update to report at the next `flush`, which must come before the next `submit`.

        Args:
          step: updates done.
          indices: [B] row numbers, -1 for padding.
          metrics, row_losses: of the train step, possibly not computed yet.
        """
        self._pending = step, indices, metrics, row_losses

    def flush(self) -> bool:
        """Waits for the submitted update, if any, and reports it. Returns whether any process wants to stop.

        Raises:
          RunFailed: a metric is not finite, or too many updates in a row were skipped.
        """
        if self._pending is None:
            return False
        (step, indices, arrays, row_losses), self._pending = self._pending, None
        metrics = {name: float(value) for name, value in jax.device_get(arrays).items()}
        stop = metrics.pop("stop") > 0
        self._check(step, indices, metrics, row_losses)
        # The metrics of every update are read anyway, so their means cost no further wait for the devices.
        self._interval.add(metrics, metrics.get("consecutive_skips", 0) > 0,
                           self._warmup.used(step - 1) / self._warmup.parts)
        metrics |= self._interval.means() | self._interval.speeds(self._flops)
        log = step % self._config.train.log_every == 0 or step == self._total
        self._services.progress.show(step, metrics, log)
        if log:
            if failures := self._services.checkpointer.failures:
                metrics["failed_saves"] = failures
            self._services.metrics.write(
                step, "train", {name: value if math.isfinite(value) else None for name, value in metrics.items()})
            self._interval.reset()
        return stop

    def _check(self, step: int, indices: np.ndarray, metrics: dict[str, float], row_losses: jax.Array) -> None:
        skips, failure = metrics.get("consecutive_skips", 0), ""
        finite = all(math.isfinite(value) for value in metrics.values())
        if finite and not skips:
            return
        # All processes have the same metrics, so that they gather together.
        details = (f"loss {metrics['loss']:g}, gradient norm {metrics['gradient_norm']:g}; "
                   f"{self._worst_rows(indices, gather(row_losses))}")
        if skips:
            self._services.progress.log(
                f"step {step:,}: update skipped, {metrics['skipped_updates']:.0f} so far: {details}")
            if skips >= self._config.skip.stop_after:
                failure = f"{skips:.0f} bad updates in a row, the limit of config.skip.stop_after"
        else:
            failure = "not finite: " + ", ".join(
                f"{name} {value:g}" for name, value in metrics.items() if not math.isfinite(value))
        if failure:
            remedy = ("lower config.optimizer.learning_rate or lengthen config.schedule.warmup"
                      + ("" if self._config.skip.stop_after else
                         ", or skip such updates with config.skip.stop_after=10"))
            raise RunFailed(f"step {step}: {failure}; {details}; the checkpoints are of earlier steps; {remedy}")

    def _worst_rows(self, rows: np.ndarray, losses: np.ndarray) -> str:
        """The rows with the highest losses, those that are not finite first, without padding (-1)."""
        ranked = np.argsort(np.where(np.isfinite(losses), -losses, -np.inf), kind="stable")
        by_row: dict[int, float] = {}  # parts of a batch that a warmup does not use repeat a row, with a loss of 0
        for place in ranked[rows[ranked] >= 0].tolist():
            by_row.setdefault(int(rows[place]), losses[place])
        worst = [f"{row} ({loss:.4g})" for row, loss in itertools.islice(by_row.items(), _ROWS_SHOWN)]
        first = self._describe_row(next(iter(by_row)))
        return f"rows with the highest loss, of {len(by_row):,}: {', '.join(worst)}" + (
            f", the first of which holds {first}" if first else "")
