"""Annotated units (named entities, noun phrases) mixed with geometric spans (the reference's `ner_span`)."""
from collections.abc import Callable

import jax
import jax.numpy as jnp

from spanbert_jax.masking.schemes.geometric import geometric
from spanbert_jax.masking.schemes.step import MaskingStep, first
from spanbert_jax.masking.settings import MaskingSettings


def annotated(spec: MaskingSettings) -> Callable[[MaskingStep], jax.Array]:
    """With probability `annotated_rate` a uniformly drawn unit, otherwise a geometric span.

    The reference draws units with replacement and anchors without a look at the mask, and tries anew after a step that
    masks nothing. With q the rate, e the share of the block's units that hold an unmasked token and u the share of its
    tokens that are unmasked, an attempt masks something by a unit with probability q e and by a span with (1 - q) u, so
    the step that counts is a unit with probability q e / (q e + (1 - q) u). Changed on purpose: without units left the
    steps are spans (the reference never ends at a rate of 1), and adjacent units stay apart.
    """
    span = geometric(spec)
    rate = spec.annotated_rate

    def propose(turn: MaskingStep) -> jax.Array:
        open_units = turn.unmasked & (turn.units > 0)
        live = rate * _count_units(open_units, turn.units) / jnp.maximum(1, _count_units(turn.block, turn.units))
        free = (1 - rate) * jnp.sum(turn.unmasked) / jnp.maximum(1, jnp.sum(turn.block))
        draw = (turn.bits[1] >> 8).astype(jnp.float32) * 2.0**-24
        unit = turn.units[first(turn.unit_priority, open_units)]
        return jnp.where(draw * (live + free) < live, turn.units == unit, span(turn))

    return propose


def _count_units(marked: jax.Array, units: jax.Array) -> jax.Array:
    """How many units hold a marked token. Unit numbers rise through the row, so a new one is above all before it."""
    marked_units = jnp.where(marked, units, 0)
    before = jnp.pad(jax.lax.cummax(marked_units)[:-1], (1, 0))
    return jnp.sum(marked_units > before)
