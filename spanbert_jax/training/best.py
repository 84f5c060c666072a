"""The best evaluation of a run so far."""
from __future__ import annotations

from collections.abc import Mapping

from spanbert_jax.training.trackers import Metrics


class BestTracker:
    """Follows one metric over the evaluations of a run; higher is better.

    Attributes:
      steps: the steps that each scored better than all before, ascending. Every new best replaces the whole tuple, so
        that other threads may read it at any time.
    """

    def __init__(self, metric: str, evaluations: Mapping[int, Metrics]):
        """Args: metric: "" tracks nothing; evaluations: metrics by step of earlier attempts of this run."""
        self._metric, self._score = metric, -float("inf")
        self.steps: tuple[int, ...] = ()
        for step, metrics in sorted(evaluations.items()):
            self.update(step, metrics)

    def update(self, step: int, metrics: Metrics) -> None:
        """Adds an evaluation."""
        score = metrics.get(self._metric)
        if isinstance(score, (int, float)) and score > self._score:
            self._score, self.steps = score, (*self.steps, step)

    def is_best(self, step: int) -> bool:
        """Whether the state after `step` updates has the best score so far."""
        return self.steps[-1:] == (step,)
