"""Reads the metrics of each update, checks that training may continue, and logs them."""
from __future__ import annotations

import math

import jax
import numpy as np

from spanbert_jax.common.errors import RunFailed
from spanbert_jax.training.experiment import Experiment
from spanbert_jax.training.services import Services
from spanbert_jax.training.timer import Timer


class UpdateReporter:
    """Reports one update at a time, usually while the devices compute the next one."""

    def __init__(self, experiment: Experiment, services: Services):
        self._config, self._flops = experiment.config, experiment.workload.flops
        self._total = experiment.total_steps
        self._services = services
        self._timer = Timer(lambda: services.goodput.spent("steps", "data"))
        self._pending: tuple[int, np.ndarray, dict[str, jax.Array]] | None = None

    def submit(self, step: int, indices: np.ndarray, metrics: dict[str, jax.Array]) -> None:
        """Takes an update to report at the next `flush`, which must come before the next `submit`.

        Args:
          step: updates done, this one included.
          indices: [B] row numbers of its batch.
          metrics: of the train step, possibly still being computed.
        """
        self._pending = step, indices, metrics

    def flush(self) -> bool:
        """Waits for the submitted update, if any, and reports it. Returns whether any process wants to stop.

        Raises:
          RunFailed: a metric is not finite, or too many updates in a row were skipped.
        """
        if self._pending is None:
            return False
        (step, indices, arrays), self._pending = self._pending, None
        metrics = {name: float(value) for name, value in jax.device_get(arrays).items()}
        stop = metrics.pop("stop") > 0
        self._check(step, indices, metrics)
        self._timer.lap(metrics["tokens"])
        metrics |= self._timer.speeds(self._flops)
        log = step % self._config.train.log_every == 0 or step == self._total
        self._services.progress.show(step, metrics, log)
        if log:
            self._write(step, metrics)
            self._timer.reset()
        return stop

    def _write(self, step: int, metrics: dict[str, float]) -> None:
        if failures := self._services.checkpointer.failures:
            metrics["failed_saves"] = failures
        self._services.metrics.write(
            step, "train", {name: value if math.isfinite(value) else None for name, value in metrics.items()})

    def _check(self, step: int, indices: np.ndarray, metrics: dict[str, float]) -> None:
        details = f"loss {metrics['loss']:g}, gradient norm {metrics['gradient_norm']:g}; rows {indices.tolist()}"
        skips, failure = metrics.get("consecutive_skips", 0), ""
        if skips:
            self._services.progress.log(
                f"step {step:,}: update skipped, {metrics['skipped_updates']:.0f} so far: {details}")
            if skips >= self._config.skip.stop_after:
                failure = f"{skips:.0f} bad updates in a row, the limit of config.skip.stop_after"
        elif not all(math.isfinite(value) for value in metrics.values()):
            failure = "not finite: " + ", ".join(
                f"{name} {value:g}" for name, value in metrics.items() if not math.isfinite(value))
        if failure:
            raise RunFailed(f"step {step}: {failure}; {details}; the checkpoints are of earlier steps")
