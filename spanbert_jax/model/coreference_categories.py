"""Categories of pairs of mentions by their words, each of which can be scored by weights of its own.

The categories of Otmazgin et al. 2023 ("LingMess: Linguistically Informed Multi Expert Scorers for Coreference
Resolution"): two pronouns that agree, two that do not, a pronoun with another mention, mentions of the same content
words, mentions of which one contains the other's content words, and all others.
"""
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Integer, UInt32

CATEGORIES = ("agreeing pronouns", "other pronouns", "pronoun and other", "same words", "contained words", "other")
FUNCTION_WORD = 0  # the class of a word that is no content of a mention
FIRST_CONTENT_CLASS = 32  # of content words, one for each; those before are of pronouns, which agree if theirs is equal
# Two bits of 128 for each content word: a set of words contains another one if it has all of its bits. One word is
# mistaken for one of four others in one of about 250 cases.
_FACTORS = (0x9E3779B1, 0x85EBCA6B)
_MASK_WORDS = 4  # 32 bits each


class MentionWords(NamedTuple):
    """What the categories depend on, of M mentions."""
    pronoun: Integer[Array, " M"]  # class of the pronoun, 0 for other mentions
    total: UInt32[Array, " M"]  # sum over the content words, 0 without any
    mask: UInt32[Array, "M 4"]  # bits of the content words


def mention_words(classes: Integer[Array, "M L"], widths: Integer[Array, " M"]) -> MentionWords:
    """The words of mentions.

    Args:
      classes: of the first L words from the start of each mention on; those of longer mentions have no influence.
      widths: number of words of each mention.
    """
    inside = jnp.arange(classes.shape[1]) < widths[:, None]
    content = inside & (classes >= FIRST_CONTENT_CLASS)
    hashes = [classes.astype(jnp.uint32) * np.uint32(factor) for factor in _FACTORS]
    mask = []
    for number in range(_MASK_WORDS):
        bits = [jnp.where(content & (value >> 30 == number), jnp.uint32(1) << (value >> 25 & 31), 0)
                for value in hashes]
        mask.append(jnp.bitwise_or.reduce(bits[0] | bits[1], axis=1))
    is_pronoun = (widths == 1) & (classes[:, 0] > FUNCTION_WORD) & (classes[:, 0] < FIRST_CONTENT_CLASS)
    return MentionWords(jnp.where(is_pronoun, classes[:, 0], 0),
                        jnp.sum(jnp.where(content, hashes[0] ^ hashes[1] >> 15, 0), axis=1, dtype=jnp.uint32),
                        jnp.stack(mask, axis=1))


def pair_categories(mentions: MentionWords, antecedents: MentionWords) -> Integer[Array, "Q M"]:
    """The number in `CATEGORIES` of each pair of Q mentions and M antecedents."""
    pronoun, other_pronoun = mentions.pronoun[:, None], antecedents.pronoun
    mask, other_mask = mentions.mask[:, None], antecedents.mask
    both = mask & other_mask
    has_content = (mentions.total != 0)[:, None] & (antecedents.total != 0)
    contained: Bool[Array, "Q M"] = has_content & (
        (both == mask).all(-1) | (both == other_mask).all(-1))
    return jnp.select(
        [(pronoun > 0) & (pronoun == other_pronoun), (pronoun > 0) & (other_pronoun > 0),
         (pronoun > 0) | (other_pronoun > 0), has_content & (mentions.total[:, None] == antecedents.total), contained],
        list(range(len(CATEGORIES) - 1)), len(CATEGORIES) - 1)
