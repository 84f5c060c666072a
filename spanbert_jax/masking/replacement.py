"""Replacement of masked tokens by [MASK], by random tokens or by themselves."""
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, UInt32

from spanbert_jax.common.errors import UserError
from spanbert_jax.masking.distribution import DiscreteDistribution
from spanbert_jax.masking.settings import MaskingSettings

Replace = Callable[[UInt32[Array, "2 M"], Int32[Array, " M"], Int32[Array, " M"]], Int32[Array, " M"]]


def make_replacement(settings: MaskingSettings, mask_id: int, special_ids: tuple[int, ...],
                     unigram: np.ndarray) -> Replace:
    """Makes `replace(bits, targets, group)`, which gives the tokens that replace the targets.

    `group[m]` is the slot whose random bits decide between [MASK], a random token and the target in slot m. It is m
    itself in replacement by token, and the slot of the span's first token in replacement by span. The random tokens are
    drawn one by one from the unigram distribution of the corpus, as in the reference (in BERT, uniformly).

    Args:
      special_ids: ids that are never drawn.
      unigram: token counts [V] of the corpus.

    Raises:
      UserError: there is no token to draw.
    """
    counts = np.array(unigram, np.float64)
    counts[list(special_ids)] = 0
    if not counts.sum() > 0:
        raise UserError("the corpus unigram counts no token but special ones: prepare the corpus again")
    random_tokens = DiscreteDistribution(counts)
    kept_share = max(0.0, 1 - settings.mask_share - settings.random_share)
    outcomes = DiscreteDistribution([settings.mask_share, settings.random_share, kept_share])

    def replace(bits: UInt32[Array, "2 M"], targets: Int32[Array, " M"],
                group: Int32[Array, " M"]) -> Int32[Array, " M"]:
        outcome = outcomes.draw(bits[0])[group]
        return jnp.where(outcome == 0, mask_id, jnp.where(outcome == 1, random_tokens.draw(bits[1]), targets))

    return replace
