"""Exact samples of a discrete distribution, from 32 random bits each."""
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, UInt32


class DiscreteDistribution:
    """A distribution over the integers 0..K-1, sampled by inverting its cumulative distribution.

    The cumulative table is computed in float64 and stored as uint32, so each probability is exact to 2**-32; a float32
    table over a vocabulary would not be. Integers without weight are never drawn.
    """

    def __init__(self, weights: Sequence[float] | np.ndarray):
        """Takes unnormalized weights [K], at least one of which is positive."""
        weights = np.asarray(weights, np.float64)
        self._values = np.flatnonzero(weights > 0).astype(np.int32)
        cumulative = np.cumsum(weights[self._values])
        self._table = np.minimum(np.round(cumulative[:-1] / cumulative[-1] * 2**32), 2**32 - 1).astype(np.uint32)

    def draw(self, bits: UInt32[Array, "*shape"]) -> Int32[Array, "*shape"]:
        """One sample for each word of random bits."""
        # A short table is compared as a whole, because bisection gathers, which is slow on accelerators.
        method = "compare_all" if len(self._table) <= 32 else "scan"
        return jnp.asarray(self._values)[jnp.searchsorted(jnp.asarray(self._table), bits, side="right", method=method)]
