"""The train step: one jitted, sharded function of a donated state and a batch."""
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from spanbert_jax.model.losses import LossSums, add_rows
from spanbert_jax.training.batch_warmup import FULL_BATCH, BatchWarmup
from spanbert_jax.training.config import RunConfig
from spanbert_jax.training.mesh import AXES, batch_sharding, spread_over_data
from spanbert_jax.training.skipping import is_bad, record_update
from spanbert_jax.training.state import TrainState, shardings_of
from spanbert_jax.training.workload import Batch, Objective

_MASKING, _DROPOUT = 0, 1  # folded into the key of a step for its two uses of randomness


def step_key(seed: int, step: jax.Array) -> jax.Array:
    """The random key of a step, a function of seed and step: a resumed run draws the same numbers."""
    return jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), step)


def loss_and_gradients(objective: Objective, params: Any, inputs: Any, dropout_key: jax.Array, accumulation: int,
                       layout: Any = None, used: int | jax.Array | None = None,
                       ) -> tuple[jax.Array, dict[str, LossSums], Any, jax.Array]:
    """Loss, loss sums, gradients and losses by row [B] of a batch, computed in `accumulation` parts.

    Losses are divided by the target counts of the whole batch, so that the losses and gradients of the parts add up to
    those of the batch however its targets are distributed. The loss of a row is that of a batch of this row alone, and
    0 in parts that do not count.

    Args:
      inputs: of the whole batch, from `objective.prepare_inputs`.
      layout: shardings of the gradients; None leaves them to the compiler.
      used: parts that count, the first ones; None for all.
    """
    def loss_of(params: Any, part: Any, key: jax.Array) -> tuple[jax.Array, tuple[dict[str, LossSums], jax.Array]]:
        by_row = objective.loss_sums(params, part, key)
        sums = {name: add_rows(value) for name, value in by_row.items()}
        row_losses = objective.loss(by_row, {name: value.count for name, value in by_row.items()})
        return objective.loss(sums, counts), (sums, row_losses)

    def add_part(index: jax.Array | int, part: Any) -> tuple[tuple[jax.Array, dict[str, LossSums], Any], jax.Array]:
        key = jax.random.fold_in(dropout_key, index)
        (loss, (sums, row_losses)), gradients = jax.value_and_grad(loss_of, has_aux=True)(params, part, key)
        if layout is not None:
            gradients = jax.lax.with_sharding_constraint(gradients, layout)
        rows = len(jax.tree.leaves(part)[0])
        return (loss, sums, gradients), jnp.broadcast_to(row_losses, rows)  # a task may give one loss for all rows

    if accumulation == 1:
        counts = objective.counts(inputs)
        total, row_losses = add_part(0, inputs)
        return *total, row_losses
    # Row r goes to part r mod accumulation, so that no row moves between devices.
    parts = jax.tree.map(lambda x: x.reshape(-1, accumulation, *x.shape[1:]).swapaxes(0, 1), inputs)
    counts = objective.counts(inputs) if used is None else jax.tree.map(
        lambda of_parts: jnp.sum(of_parts, where=jnp.arange(accumulation) < used), jax.vmap(objective.counts)(parts))
    total, row_losses = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
                                     jax.eval_shape(lambda: add_part(0, jax.tree.map(lambda x: x[0], parts))))

    def add(index: jax.Array, carry: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
        values, row_losses = add_part(index, jax.tree.map(lambda x: x[index], parts))
        return jax.tree.map(jnp.add, carry[0], values), carry[1].at[index].set(row_losses)

    total, row_losses = jax.lax.fori_loop(0, accumulation if used is None else used, add,
                                          (total, jnp.zeros((accumulation, *row_losses.shape))))
    return *total, row_losses.swapaxes(0, 1).reshape(-1)


def make_train_step(config: RunConfig, objective: Objective, optimizer: optax.GradientTransformation,
                    schedule: optax.Schedule, abstract: TrainState, mesh: Mesh, warmup: BatchWarmup = FULL_BATCH,
                    ) -> Callable[[TrainState, Batch, jax.Array], tuple[TrainState, dict[str, jax.Array], jax.Array]]:
    """Builds the jitted step: (state, which is donated; batch; `mesh.stop_flags`) -> (state, metrics, row losses).

    The metrics are scalars: "loss", the mean loss and accuracy of each objective such as "masked_loss" and
    "masked_accuracy", "gradient_norm", "parameter_norm", "learning_rate", "tokens" (without padding), "stop" (whether
    any process wants to stop: all processes learn it at the same step, without further communication) and, if the
    config skips bad updates, "skipped_updates" and "consecutive_skips". The row losses [B] stay on the devices of their
    rows: they are read only to find the rows of a bad update.

    Args: warmup: of the batch; the rows of parts that a step does not use change nothing.
    """
    rules, skip = config.mesh.rules, config.skip
    layout, replicated = shardings_of(abstract), NamedSharding(mesh, PartitionSpec())
    by_row, per_device = batch_sharding(mesh, rules), NamedSharding(mesh, PartitionSpec(AXES))
    # ZeRO-1: each device computes the updates of its parts of the parameters.
    parts = spread_over_data(abstract.params, layout.params) if config.mesh.zero1 else None

    def train_step(state: TrainState, batch: Batch,
                   stop: jax.Array) -> tuple[TrainState, dict[str, jax.Array], jax.Array]:
        with nn.logical_axis_rules(rules):
            key = step_key(config.seed, state.step)
            inputs = objective.prepare_inputs(jax.random.fold_in(key, _MASKING), batch)
            accumulation, used = config.train.accumulation, None
            counted = batch["segments"] > 0
            if warmup.steps:
                used = warmup.used_in_jit(state.step)
                counted &= jnp.arange(len(counted))[:, None] % accumulation < used
            loss, sums, gradients, row_losses = loss_and_gradients(
                objective, state.params, inputs, jax.random.fold_in(key, _DROPOUT), accumulation, parts, used)
            updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
            if parts is not None:
                # Gather the updates, not the parameters, so that the parameters are updated in place.
                updates = jax.lax.with_sharding_constraint(updates, layout.params)
            params = optax.apply_updates(state.params, updates)
        gradient_norm = optax.tree.norm(gradients)
        metrics = {"loss": loss, **mean_metrics(sums), "gradient_norm": gradient_norm,
                   "tokens": jnp.sum(counted), "stop": jnp.any(stop),
                   # The optimiser counts applied updates only.
                   "learning_rate": schedule(state.step - state.history.skipped)}
        bad = jnp.zeros((), bool)
        if skip.stop_after:
            bad = is_bad(state.history, loss, gradient_norm, skip.deviations)
            params, opt_state = jax.tree.map(
                lambda old, new: jnp.where(bad, old, new), (state.params, state.opt_state), (params, opt_state))
        history = record_update(state.history, loss, gradient_norm, bad)
        if skip.stop_after:
            metrics |= {"skipped_updates": history.skipped, "consecutive_skips": history.consecutive_skips}
        metrics["parameter_norm"] = optax.tree.norm(params)
        return TrainState(state.step + 1, params, opt_state, history), metrics, row_losses

    return jax.jit(train_step, in_shardings=(layout, by_row, per_device),
                   out_shardings=(layout, replicated, by_row), donate_argnums=0)


def mean_metrics(sums: Mapping[str, LossSums]) -> dict[str, jax.Array]:
    """Mean "NAME_loss" and "NAME_accuracy" over the targets of each loss; 0 without targets."""
    metrics = {}
    for name, value in sums.items():
        count = value.count + (value.count == 0)
        metrics[f"{name}_loss"] = value.loss / count
        if value.correct is not None:
            metrics[f"{name}_accuracy"] = value.correct / count
    return metrics
