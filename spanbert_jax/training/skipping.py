"""Leaving out updates whose loss or gradient norm is not finite, or far above what it has been lately."""
from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

# Updates looked back on, and how many there must have been before any is called far outside.
WINDOW, ENOUGH = 128, 16
# A normal law's standard deviation is this many times its median absolute deviation.
_DEVIATION = 1.4826


@flax.struct.dataclass
class Recent:
    """What the last updates were like: part of the state, so that a resumed run decides as an unbroken one.

    Attributes:
      losses, gradient_norms: [WINDOW] float32, of the updates made, written round and round.
      made: updates made.
      left_out: updates left out, and how many of them since the last one made.
    """
    losses: jax.Array
    gradient_norms: jax.Array
    made: jax.Array
    left_out: jax.Array
    in_a_row: jax.Array


def no_updates() -> Recent:
    """Before the first update."""
    return Recent(*(jnp.zeros(WINDOW, jnp.float32) for _ in range(2)), *(jnp.zeros((), jnp.int32) for _ in range(3)))


def is_bad(recent: Recent, loss: jax.Array, gradient_norm: jax.Array, deviations: float) -> jax.Array:
    """Whether an update with these figures is to be left out.

    It is when one of them is not finite, or lies more than `deviations` standard deviations above the median of the
    updates made lately; the deviation is told by the median absolute one, which outliers do not move. Only above: a low
    loss or a small gradient harms nothing.
    """
    finite = jnp.isfinite(loss) & jnp.isfinite(gradient_norm)
    return ~(finite & _usual(recent.losses, recent.made, loss, deviations)
             & _usual(recent.gradient_norms, recent.made, gradient_norm, deviations))


def _usual(values: jax.Array, made: jax.Array, value: jax.Array, deviations: float) -> jax.Array:
    seen = jnp.where(jnp.arange(WINDOW) < made, values, jnp.nan)
    middle = jnp.nanmedian(seen)
    spread = _DEVIATION * jnp.nanmedian(jnp.abs(seen - middle))
    return (made < ENOUGH) | (value <= middle + deviations * spread)


def remember(recent: Recent, loss: jax.Array, gradient_norm: jax.Array, bad: jax.Array) -> Recent:
    """`recent` after an update; what is left out does not count as usual."""
    def write(values: jax.Array, value: jax.Array) -> jax.Array:
        return jnp.where(bad, values, values.at[recent.made % WINDOW].set(value))

    return Recent(write(recent.losses, loss), write(recent.gradient_norms, gradient_norm), recent.made + ~bad,
                  recent.left_out + bad, jnp.where(bad, recent.in_a_row + 1, 0))
