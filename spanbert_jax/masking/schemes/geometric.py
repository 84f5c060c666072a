"""Spans of whole words with geometric lengths (SpanBERT, section 3.1)."""
import dataclasses
from collections.abc import Callable

import jax
import numpy as np

from spanbert_jax.masking.distribution import DiscreteDistribution
from spanbert_jax.masking.schemes.step import MaskingStep, first
from spanbert_jax.masking.settings import MaskingSettings


def geometric(spec: MaskingSettings) -> Callable[[MaskingStep], jax.Array]:
    """L words from the start of the word that holds the anchor, a uniformly drawn unmasked token.

    L has weight p(1-p)^(L-lower) on lower..upper words, renormalised. As in the reference, the anchor is uniform over
    tokens (the paper: over words), so long words start more spans; the span ends with the block; words masked before
    count towards L.
    """
    law = DiscreteDistribution((1 - spec.geometric_p) ** np.arange(spec.span_upper - spec.span_lower + 1))

    def propose(turn: MaskingStep) -> jax.Array:
        start = turn.words[first(turn.token_priority, turn.unmasked)]
        end = start + spec.span_lower + law.draw(turn.bits[0])
        return (turn.words >= start) & (turn.words < end)

    return propose


def whole_word(spec: MaskingSettings) -> Callable[[MaskingStep], jax.Array]:
    """Single whole words: the geometric scheme with lengths 1 to 1."""
    return geometric(dataclasses.replace(spec, span_lower=1, span_upper=1))
