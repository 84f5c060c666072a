"""What a task computes: its prediction program and its evaluation by loss."""
from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from spanbert_jax.model.losses import LossSums


def select_inputs(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays of packed rows that an encoder reads."""
    return {name: batch[name] for name in ("tokens", "segments", "token_types", "first")}


@dataclasses.dataclass(frozen=True)
class Program:
    """What prediction computes from parameters and rows.

    Attributes:
      compute: from parameters and a batch [R, ...] to outputs by name; traced by jit.
      inputs: the arrays of a batch of packed rows that `compute` reads.
      per_text: whether outputs are [R, K, ...], an entry for each text of a row, or [R, S, ...], one for each position.
      prepare_params: changes parameters to the layout that `compute` reads; jitted and called once.
      finish: outputs of all features, on the host, as `Task.decode` takes them.
      local: compute on the devices of each process with a whole copy of the parameters, also during training, where
        the mesh may split them.
    """
    compute: Callable[[Any, Mapping[str, jax.Array]], dict[str, jax.Array]]
    inputs: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
    per_text: bool
    prepare_params: Callable[[Any], Any] | None = None
    finish: Callable[[dict[str, np.ndarray]], dict[str, Any]] = dict
    local: bool = False


@dataclasses.dataclass(frozen=True)
class LossEvaluation:
    """Evaluation by held-out loss.

    Attributes:
      metric: name of the metric that compares checkpoints; higher is better.
      loss: as `Task.loss`.
      metrics: from the sums of loss, correct targets and targets to all metrics.
    """
    metric: str
    loss: Callable[[Any, Mapping[str, jax.Array]], LossSums]
    metrics: Callable[[float, float, float], dict[str, float]]
