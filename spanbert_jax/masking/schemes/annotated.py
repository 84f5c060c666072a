"""Annotated units (named entities, noun phrases) mixed with geometric spans (the reference's `ner_span`)."""
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from spanbert_jax.masking.schemes.geometric import geometric
from spanbert_jax.masking.schemes.step import MaskingStep, Propose, Scheme, first
from spanbert_jax.masking.settings import MaskingSettings


@Scheme
def annotated(settings: MaskingSettings) -> Propose:
    """A uniformly drawn unit with probability `annotated_rate`, otherwise a geometric span.

    The reference draws units with replacement and anchors regardless of the mask, and tries again after a step that
    masks nothing. Let q be the rate, e the fraction of the block's units with an unmasked token, and u the fraction of
    its tokens that are unmasked. An attempt masks something by a unit with probability q e and by a span with
    probability (1 - q) u. So a step that masks something is a unit with probability q e / (q e + (1 - q) u).

    Two differences are deliberate: without units left, steps are spans (with a rate of 1 the reference never ends), and
    adjacent units stay separate.
    """
    propose_span = geometric.make(settings)
    rate = settings.annotated_rate

    def propose(step: MaskingStep) -> Bool[Array, " S"]:
        open_units = step.unmasked & (step.units > 0)
        by_unit = rate * _count_units(open_units, step.units) / jnp.maximum(1, _count_units(step.block, step.units))
        by_span = (1 - rate) * jnp.sum(step.unmasked) / jnp.maximum(1, jnp.sum(step.block))
        uniform = (step.bits[1] >> 8).astype(jnp.float32) * 2.0**-24
        unit = step.units[first(step.unit_priority, open_units)]
        return jnp.where(uniform * (by_unit + by_span) < by_unit, step.units == unit, propose_span(step))

    return propose


def _count_units(marked: Bool[Array, " S"], units: Int[Array, " S"]) -> Int[Array, ""]:
    """Number of units with a marked token. Units ascend in the row, so a new one is above all before it."""
    marked_units = jnp.where(marked, units, 0)
    before = jnp.pad(jax.lax.cummax(marked_units)[:-1], (1, 0))
    return jnp.sum(marked_units > before)
