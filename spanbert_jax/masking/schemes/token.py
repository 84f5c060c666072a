"""Single tokens (the reference's `random`, BERT's subword masking)."""
from collections.abc import Callable

import jax
import jax.numpy as jnp

from spanbert_jax.masking.schemes.step import MaskingStep
from spanbert_jax.masking.settings import MaskingSettings


def token(spec: MaskingSettings) -> Callable[[MaskingStep], jax.Array]:
    """Uniform without replacement: the whole budget in one step, the tokens of highest priority."""
    del spec

    def propose(turn: MaskingStep) -> jax.Array:
        priority = jnp.where(turn.unmasked, turn.token_priority, -1)
        lowest_kept = jnp.sort(priority, descending=True)[turn.remaining - 1]
        return priority >= lowest_kept

    return propose
