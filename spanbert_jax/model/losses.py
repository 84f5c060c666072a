"""Cross-entropy with accuracy, and sums of losses that add up over rows, devices and microbatches."""
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Float32, Integer


class LossSums(NamedTuple):
    """Sums of one objective over its targets: float32, [R] for each row of a batch, or scalars for several rows.

    They add up over rows, devices and microbatches.
    """
    loss: Float32[Array, "..."]  # in nats
    correct: Float32[Array, "..."] | None  # number of correct predictions; None in regression
    count: Float32[Array, "..."]  # type: ignore[assignment]  # number of targets; hides tuple.count


def cross_entropy(logits: Float[Array, "*targets V"],
                  targets: Integer[Array, "*targets"]) -> tuple[Float[Array, "*targets"], Float32[Array, "*targets"]]:
    """Cross-entropy of each target in nats, and whether the target has the highest logit."""
    loss = optax.losses.softmax_cross_entropy_with_integer_labels(logits, targets)
    # Comparing with the maximum is many times cheaper than an argmax.
    target = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return loss, (target >= jnp.max(logits, axis=-1)).astype(jnp.float32)


def weighted_sums(losses: Float[Array, "*targets"], correct: Float32[Array, "*targets"] | None,
                  weights: Float[Array, "*targets"]) -> LossSums:
    """Sums over the weighted targets of each row, [R]; targets are [R, ...]."""
    def by_row(values: jax.Array) -> jax.Array:
        return jnp.sum(values, axis=tuple(range(1, values.ndim)))

    hits = None if correct is None else by_row(correct * weights)
    return LossSums(by_row(losses * weights), hits, by_row(weights))


def add_rows(sums: LossSums) -> LossSums:
    """The sums over all rows: scalars."""
    return jax.tree.map(jnp.sum, sums)
