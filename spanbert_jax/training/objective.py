"""What a run minimises, as the step sees it."""
from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax

from spanbert_jax.model.losses import LossSums

Batch = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Objective:
    """Pure functions of arrays, traced inside the step.

    Attributes:
      draw: from a key and a batch to what the network is given: a tree of arrays with a row for each of its rows.
      counts: from that of the whole batch to its targets, by term.
      terms: from parameters, what was drawn (or some rows of it) and a key for dropout to the sums over its targets.
      loss: from the terms of some rows and the counts of all to what is minimised; those of the parts of a batch add up
        to that of the whole.
    """
    draw: Callable[[jax.Array, Batch], Any]
    counts: Callable[[Any], dict[str, jax.Array]]
    terms: Callable[[Any, Any, jax.Array], dict[str, LossSums]]
    loss: Callable[[Mapping[str, LossSums], Mapping[str, jax.Array]], jax.Array]
