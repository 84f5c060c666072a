"""Single tokens (the reference's `random`, BERT's subword masking)."""
import functools

import jax.numpy as jnp
from jaxtyping import Array, Bool

from spanbert_jax.masking.schemes.step import MaskingStep, Propose, Scheme
from spanbert_jax.masking.settings import MaskingSettings


@functools.partial(Scheme, forms_spans=False)
def token(settings: MaskingSettings) -> Propose:
    """Tokens drawn uniformly without replacement: the whole budget in one step, by descending priority."""
    del settings

    def propose(step: MaskingStep) -> Bool[Array, " S"]:
        priority = jnp.where(step.unmasked, step.token_priority, -1)
        lowest_kept = jnp.sort(priority, descending=True)[step.remaining - 1]
        return priority >= lowest_kept

    return propose
