"""What stands in the place of a masked token: [MASK], a random piece, or the token itself."""
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from spanbert_jax.common.errors import UserError
from spanbert_jax.masking.distribution import DiscreteDistribution
from spanbert_jax.masking.settings import MaskingSettings


def make_replacement(
        spec: MaskingSettings, mask_id: int, special_ids: tuple[int, ...], unigram: np.ndarray,
) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
    """Makes `replace(bits, targets, group) -> pieces` from uint32 random bits [2, M] and int32 [M] to int32 [M].

    `group[m]` is the slot whose draw decides what slot m becomes: m itself for replacement token by token, the slot of
    the span's first token for replacement by span. Random pieces are drawn for each token, from the corpus unigram as
    in the reference (BERT: uniformly from the vocabulary).

    Args:
        spec: gives the shares of [MASK] and of random pieces.
        mask_id: the id of [MASK].
        special_ids: ids never drawn.
        unigram: counts [V] of the corpus.

    Raises:
        UserError: no piece can be drawn.
    """
    counts = np.array(unigram, np.float64)
    counts[list(special_ids)] = 0
    if not counts.sum() > 0:
        raise UserError("the corpus unigram counts no piece but special tokens: prepare the corpus again")
    pieces = DiscreteDistribution(counts)
    outcome = DiscreteDistribution([spec.mask_share, spec.random_share, max(0.0, 1 - spec.mask_share - spec.random_share)])

    def replace(bits: jax.Array, targets: jax.Array, group: jax.Array) -> jax.Array:
        drawn = outcome.draw(bits[0])[group]
        return jnp.where(drawn == 0, mask_id, jnp.where(drawn == 1, pieces.draw(bits[1]), targets))

    return replace
