"""Skips updates whose loss or gradient norm is not finite or far above the recent ones."""
import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from spanbert_jax.common.settings import Settings, setting

WINDOW, MINIMUM = 128, 16  # updates in the history, and how many of them are needed before any is called an outlier
_DEVIATION = 1.4826  # standard deviation of a normal distribution, divided by its median absolute deviation


@dataclasses.dataclass(frozen=True)
class SkipSettings(Settings):
    """Updates that are skipped."""
    stop_after: int = setting(0, "Skip bad updates, and stop the run after so many consecutive ones; 0 skips none and "
                              "stops at the first loss or gradient norm that is not finite.", minimum=0)
    deviations: float = setting(10.0, "An update is bad if its loss or gradient norm is so many standard deviations "
                                "above the median of recent updates.", above=0)


@flax.struct.dataclass
class UpdateHistory:
    """Losses and gradient norms of the last updates; part of the train state, so that a resumed run skips the same."""
    losses: jax.Array  # [WINDOW] float32 of the applied updates, a ring buffer
    gradient_norms: jax.Array  # the same
    applied: jax.Array  # [] int32, applied updates
    skipped: jax.Array  # [] int32, skipped updates
    consecutive_skips: jax.Array  # [] int32, skipped updates since the last applied one


def empty_history() -> UpdateHistory:
    """The history before the first update."""
    return UpdateHistory(*(jnp.zeros(WINDOW, jnp.float32) for _ in range(2)),
                         *(jnp.zeros((), jnp.int32) for _ in range(3)))


def is_bad(history: UpdateHistory, loss: jax.Array, gradient_norm: jax.Array, deviations: float) -> jax.Array:
    """Whether to skip an update: [] bool.

    An update is bad if its loss or gradient norm is not finite, or more than `deviations` standard deviations above the
    median of the recent updates. The standard deviation is estimated from the median absolute deviation, which
    outliers do not change. Low values are never bad.
    """
    finite = jnp.isfinite(loss) & jnp.isfinite(gradient_norm)
    return ~(finite & _is_usual(history.losses, history.applied, loss, deviations)
             & _is_usual(history.gradient_norms, history.applied, gradient_norm, deviations))


def _is_usual(values: jax.Array, applied: jax.Array, value: jax.Array, deviations: float) -> jax.Array:
    seen = jnp.where(jnp.arange(WINDOW) < applied, values, jnp.nan)
    middle = jnp.nanmedian(seen)
    spread = _DEVIATION * jnp.nanmedian(jnp.abs(seen - middle))
    return (applied < MINIMUM) | (value <= middle + deviations * spread)


def record_update(history: UpdateHistory, loss: jax.Array, gradient_norm: jax.Array, bad: jax.Array) -> UpdateHistory:
    """The history after an update; a bad one changes only the counts."""
    def write(values: jax.Array, value: jax.Array) -> jax.Array:
        return jnp.where(bad, values, values.at[history.applied % WINDOW].set(value))

    return UpdateHistory(
        write(history.losses, loss), write(history.gradient_norms, gradient_norm), history.applied + ~bad,
        history.skipped + bad, jnp.where(bad, history.consecutive_skips + 1, 0))
