"""Cross-entropy with accuracy, and sums of losses that add up over devices and microbatches."""
from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax


class LossSums(NamedTuple):
    """One objective's sums over its targets: float32 scalars that add up over devices and microbatches."""
    loss: jax.Array  # nats
    correct: jax.Array | None  # None where no guess is right or wrong, as in regression
    count: jax.Array  # type: ignore[assignment]  # hides tuple.count


def cross_entropy(logits: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy in nats and whether no other guess is better, a target. [..., V], [...] -> [...], [...] float32."""
    loss = optax.losses.softmax_cross_entropy_with_integer_labels(logits, targets)
    # Comparing with the maximum is many times cheaper than finding where it stands.
    target = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return loss, (target >= jnp.max(logits, axis=-1)).astype(jnp.float32)


def weighted_sums(losses: jax.Array, correct: jax.Array | None, weights: jax.Array) -> LossSums:
    """The sums over targets of which each counts as much as its weight. All of one shape, float32."""
    return LossSums(jnp.sum(losses * weights), None if correct is None else jnp.sum(correct * weights), jnp.sum(weights))
