"""Exact draws from a discrete law with 32 random bits each."""
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


class DiscreteDistribution:
    """A discrete law over integers, sampled by inverting its cumulative table.

    The table is computed in float64 and held as uint32, so each probability is exact to 2**-32; a float32 table over a
    vocabulary would not be. Values without weight are left out and never drawn.
    """

    def __init__(self, weights: Sequence[float] | np.ndarray):
        """Takes unnormalised weights [K] of the integers 0..K-1, at least one of them positive."""
        weights = np.asarray(weights, np.float64)
        self._values = np.flatnonzero(weights > 0).astype(np.int32)
        cumulative = np.cumsum(weights[self._values])
        self._table = np.minimum(np.round(cumulative[:-1] / cumulative[-1] * 2**32), 2**32 - 1).astype(np.uint32)

    def draw(self, bits: jax.Array) -> jax.Array:
        """uint32 random bits of any shape -> int32 draws of that shape."""
        # A short table is compared as a whole: bisection gathers, which accelerators are slow at.
        method = "compare_all" if len(self._table) <= 32 else "scan"
        return jnp.asarray(self._values)[jnp.searchsorted(jnp.asarray(self._table), bits, side="right", method=method)]
