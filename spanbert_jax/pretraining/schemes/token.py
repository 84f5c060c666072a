"""Single tokens (the reference's `random`, BERT's subword masking)."""
from collections.abc import Callable

import jax
import jax.numpy as jnp

from spanbert_jax.pretraining.schemes.turn import Turn
from spanbert_jax.pretraining.spec import MaskingSpec


def token(spec: MaskingSpec) -> Callable[[Turn], jax.Array]:
    """Uniform without replacement: the whole budget in one step, the tokens of highest priority."""
    del spec

    def propose(turn: Turn) -> jax.Array:
        priority = jnp.where(turn.unmasked, turn.token_priority, -1)
        lowest_kept = jnp.sort(priority, descending=True)[turn.remaining - 1]
        return priority >= lowest_kept

    return propose
