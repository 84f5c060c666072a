"""Spans of whole words with geometric lengths (SpanBERT, section 3.1)."""
import numpy as np
from jaxtyping import Array, Bool

from spanbert_jax.masking.distribution import DiscreteDistribution
from spanbert_jax.masking.schemes.step import MaskingStep, Propose, Scheme, first
from spanbert_jax.masking.settings import MaskingSettings


@Scheme
def geometric(settings: MaskingSettings) -> Propose:
    """L words from the start of the word that contains the anchor, a uniformly drawn unmasked token.

    L has weight p(1-p)^(L-lower) for lower <= L <= upper, normalized. As in the reference, the anchor is uniform over
    tokens (in the paper over words), so long words start more spans; a span ends with its block; words that are masked
    already count towards L.
    """
    count = settings.span_upper - settings.span_lower + 1
    lengths = DiscreteDistribution((1 - settings.geometric_p) ** np.arange(count))

    def propose(step: MaskingStep) -> Bool[Array, " S"]:
        start = step.words[first(step.token_priority, step.unmasked)]
        end = start + settings.span_lower + lengths.draw(step.bits[0])
        return (step.words >= start) & (step.words < end)

    return propose


@Scheme
def whole_word(settings: MaskingSettings) -> Propose:
    """Single whole words: the geometric scheme with lengths 1 to 1."""
    return geometric.make(settings.replace(span_lower=1, span_upper=1))
