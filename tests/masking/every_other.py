"""A plugin for tests: a masking scheme that masks every other token of a block, from the left."""
import jax.numpy as jnp

from spanbert_jax.masking.schemes import SCHEMES, MaskingStep, Scheme


@SCHEMES.register("every_other")
@Scheme
def every_other(settings):
    """Masks the tokens at even distances from the first one, and then the rest."""
    del settings

    def propose(step: MaskingStep):
        even = step.block & ((jnp.cumsum(step.block) - 1) % 2 == 0)
        return jnp.where(jnp.any(even & step.unmasked), even, step.block)

    return propose
