"""The training objective of a task."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from spanbert_jax.model.losses import LossSums
from spanbert_jax.tasks.protocol import Task
from spanbert_jax.training.workload import Batch, Objective

_TERM = "task"


def task_objective(model: nn.Module, task: Task) -> Objective:
    """The task's loss, divided by the number of targets in the whole batch."""
    def terms(params: Any, batch: Batch, key: jax.Array | None) -> dict[str, LossSums]:
        return {_TERM: task.loss(task.apply(model, params, batch, key), batch)}

    def counts(batch: Batch) -> dict[str, jax.Array]:
        # The number of targets does not depend on the outputs, so the model is not computed for it.
        def outputs(key: jax.Array) -> Any:
            return task.apply(model, nn.unbox(model.init(key, **model.dummy_inputs))["params"], batch)

        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(outputs, jax.random.key(0)))
        return {_TERM: task.loss(zeros, batch).count}

    def loss(terms: Mapping[str, LossSums], counts: Mapping[str, jax.Array]) -> jax.Array:
        return terms[_TERM].loss / jnp.maximum(counts[_TERM], 1.0)

    return Objective(lambda key, batch: batch, counts, terms, loss)
