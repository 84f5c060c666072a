"""One update: draw, predict, differentiate, step. One jitted, sharded function that gives its state's memory back."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from spanbert_jax.model.losses import LossSums
from spanbert_jax.training.mesh import AXES, batch_sharding, spread_over_data
from spanbert_jax.training.objective import Batch, Objective
from spanbert_jax.training.skipping import is_bad, remember
from spanbert_jax.training.state import TrainState, shardings_of

# What the two uses of randomness in a step fold into its key.
_MASKING, _DROPOUT = 0, 1


def step_key(seed: int, step: jax.Array) -> jax.Array:
    """The key of a step: a function of the seed and the step, so that a resumed run draws what an unbroken one does."""
    return jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), step)


def loss_and_gradients(objective: Objective, params: Any, inputs: Any, dropout_key: jax.Array, accumulation: int,
                       layout: Any = None) -> tuple[jax.Array, dict[str, LossSums], Any]:
    """The loss of what was drawn from a batch, its terms and its gradients, computed in `accumulation` parts.

    The counts that the losses are divided by are those of the whole batch, so the parts' losses and gradients add up to
    the whole's however the targets fall among them.

    Args:
      layout: shardings of the gradients; without them the compiler's own.
    """
    counts = objective.counts(inputs)

    def loss_of(params: Any, part: Any, key: jax.Array) -> tuple[jax.Array, dict[str, LossSums]]:
        terms = objective.terms(params, part, key)
        return objective.loss(terms, counts), terms

    def add_part(index: jax.Array, part: Any) -> tuple[jax.Array, dict[str, LossSums], Any]:
        key = jax.random.fold_in(dropout_key, index)
        (loss, terms), gradients = jax.value_and_grad(loss_of, has_aux=True)(params, part, key)
        if layout is not None:
            gradients = jax.lax.with_sharding_constraint(gradients, layout)
        return loss, terms, gradients

    if accumulation == 1:
        return add_part(0, inputs)
    # Row r goes to part r mod accumulation: every device then has its share of each part already.
    parts = jax.tree.map(lambda x: x.reshape(-1, accumulation, *x.shape[1:]).swapaxes(0, 1), inputs)
    total = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
                         jax.eval_shape(lambda: add_part(0, jax.tree.map(lambda x: x[0], parts))))
    total, _ = jax.lax.scan(
        lambda total, item: (jax.tree.map(jnp.add, total, add_part(*item)), None),
        total, (jnp.arange(accumulation), parts))
    return total


def make_train_step(config: Any, objective: Objective, optimizer: optax.GradientTransformation,
                    schedule: optax.Schedule, abstract: TrainState, mesh: Mesh,
                    ) -> Callable[[TrainState, Batch, jax.Array], tuple[TrainState, dict[str, jax.Array]]]:
    """The jitted update: from a state, which is donated, a batch and `mesh.votes` on whether to stop.

    Its metrics are scalars: "loss", "masked_loss", "masked_accuracy" and so on by term (means over targets),
    "gradient_norm", "parameter_norm", "learning_rate", "tokens" (real ones, not padding), "stop" (whether any process
    voted for it: with the figures that all read anyway, all know it at the same step, and no further message is
    needed) and, where the config leaves out bad updates, "left_out" and "left_out_in_a_row" (how many so far).
    """
    rules, skip = config.mesh.rules, config.skip
    layout, whole = shardings_of(abstract), NamedSharding(mesh, PartitionSpec())
    everywhere = NamedSharding(mesh, PartitionSpec(AXES))
    # Each device makes the updates of its parts of the parameters.
    parts = spread_over_data(abstract.params, layout.params) if config.mesh.zero1 else None

    def train_step(state: TrainState, batch: Batch, votes: jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
        with nn.logical_axis_rules(rules):
            key = step_key(config.seed, state.step)
            inputs = objective.draw(jax.random.fold_in(key, _MASKING), batch)
            loss, terms, gradients = loss_and_gradients(
                objective, state.params, inputs, jax.random.fold_in(key, _DROPOUT), config.train.accumulation, parts)
            updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
            if parts is not None:
                # The updates go to all devices, and not the parameters: these are then changed where they lie.
                updates = jax.lax.with_sharding_constraint(updates, layout.params)
            params = optax.apply_updates(state.params, updates)
        gradient_norm = optax.tree.norm(gradients)
        metrics = {"loss": loss, **means(terms), "gradient_norm": gradient_norm,
                   "tokens": jnp.sum(batch["segments"] > 0), "stop": jnp.any(votes),
                   # The optimiser counts the updates made.
                   "learning_rate": schedule(state.step - state.recent.left_out)}
        bad = jnp.zeros((), bool)
        if skip.stop_after:
            bad = is_bad(state.recent, loss, gradient_norm, skip.deviations)
            params, opt_state = jax.tree.map(
                lambda old, new: jnp.where(bad, old, new), (state.params, state.opt_state), (params, opt_state))
        recent = remember(state.recent, loss, gradient_norm, bad)
        if skip.stop_after:
            metrics |= {"left_out": recent.left_out, "left_out_in_a_row": recent.in_a_row}
        metrics["parameter_norm"] = optax.tree.norm(params)
        return TrainState(state.step + 1, params, opt_state, recent), metrics

    return jax.jit(train_step, in_shardings=(layout, batch_sharding(mesh, rules), everywhere),
                   out_shardings=(layout, whole), donate_argnums=0)


def means(terms: dict[str, LossSums]) -> dict[str, jax.Array]:
    """Mean loss and accuracy by term, of sums on the device or on the host."""
    metrics = {}
    for name, term in terms.items():
        # A count is a whole number: without targets the mean is 0.
        count = term.count + (term.count == 0)
        metrics[f"{name}_loss"] = term.loss / count
        if term.correct is not None:
            metrics[f"{name}_accuracy"] = term.correct / count
    return metrics
