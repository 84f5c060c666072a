"""The function that a run minimises, as the train step calls it."""
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax

from spanbert_jax.model.losses import LossSums

Batch = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Objective:
    """Pure functions of arrays, traced inside the train step.

    Attributes:
      prepare_inputs: (key, batch) -> model inputs and targets, a tree of arrays [B, ...], such as masked rows.
      counts: (inputs of the whole batch) -> number of targets by loss.
      loss_sums: (params, inputs of some rows, dropout key) -> sums over the targets of these rows, by loss.
      loss: (loss sums of some rows, counts of the whole batch) -> the scalar to minimise. The values of the parts of a
        batch add up to the value of the whole batch.
    """
    prepare_inputs: Callable[[jax.Array, Batch], Any]
    counts: Callable[[Any], dict[str, jax.Array]]
    loss_sums: Callable[[Any, Any, jax.Array], dict[str, LossSums]]
    loss: Callable[[Mapping[str, LossSums], Mapping[str, jax.Array]], jax.Array]
