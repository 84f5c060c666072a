"""What a training loop uses besides the experiment."""
from __future__ import annotations

import dataclasses

from spanbert_jax.checkpoints import Checkpointer
from spanbert_jax.cluster.stopping import StopRequest
from spanbert_jax.training.display import TrainingProgress
from spanbert_jax.training.goodput import Goodput
from spanbert_jax.training.profiling import Profiler
from spanbert_jax.training.trackers import MetricsWriter


@dataclasses.dataclass(frozen=True)
class Services:
    """The services of one attempt of a run.

    Attributes:
      checkpointer: saves the states.
      metrics: writes metrics to the trackers.
      progress: shows them to the user.
      stop: whether this process has been asked to stop; signals must be deferred.
      goodput: counts where the time goes.
      profiler: traces the steps of `config.profile`.
    """
    checkpointer: Checkpointer
    metrics: MetricsWriter
    progress: TrainingProgress
    stop: StopRequest
    goodput: Goodput
    profiler: Profiler
