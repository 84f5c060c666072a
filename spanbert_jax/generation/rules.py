"""Rules on the next token: minimum length and repeated n-grams."""
from __future__ import annotations

import jax
import jax.numpy as jnp

from spanbert_jax.generation.settings import GenerationSettings

FORBIDDEN = -jnp.inf


def apply_rules(scores: jax.Array, texts: jax.Array, step: jax.Array, settings: GenerationSettings) -> jax.Array:
    """Scores, -inf for forbidden tokens.

    Args:
      scores: [B, K, V] of the token after position `step`.
      texts: [B, K, T] tokens up to that position; later ones are ignored.
      step: position of the last token.
      settings: the rules.
    """
    if settings.min_length:
        is_end = jnp.arange(scores.shape[-1]) == settings.end
        scores = jnp.where(is_end & (step < settings.min_length), FORBIDDEN, scores)
    if settings.no_repeat_ngram:
        scores = jnp.where(_repeats(texts, step, settings.no_repeat_ngram, scores.shape[-1]), FORBIDDEN, scores)
    return scores


def _repeats(texts: jax.Array, step: jax.Array, size: int, vocab_size: int) -> jax.Array:
    """Whether each token would complete an n-gram that occurs already. [B, K, T] -> booleans [B, K, V]."""
    count = texts.shape[-1] - size + 1
    if count < 1:
        return jnp.zeros((*texts.shape[:2], vocab_size), bool)
    first = jnp.arange(count)
    same = jnp.broadcast_to((first + size - 1 <= step) & (step >= size - 1), (*texts.shape[:2], count))
    for offset in range(size - 1):  # in the n-gram that the next token would end
        last = jnp.take(texts, jnp.maximum(step - size + 2 + offset, 0), axis=-1)[..., None]
        same &= texts[..., offset:offset + count] == last
    following = texts[..., size - 1:]
    rows, columns = (index[..., None] for index in jnp.indices(texts.shape[:2]))
    return jnp.zeros((*texts.shape[:2], vocab_size), bool).at[rows, columns, following].max(same)
