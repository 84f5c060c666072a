"""What may come next, whatever the network says of it."""
from __future__ import annotations

import jax
import jax.numpy as jnp

from spanbert_jax.generation.settings import GenerationSettings

NEVER = -jnp.inf


def allowed(scores: jax.Array, texts: jax.Array, step: jax.Array, settings: GenerationSettings) -> jax.Array:
    """Scores with those of pieces that the rules forbid at -inf.

    Args:
      scores: [B, K, V] of what follows position `step`.
      texts: [B, K, T] pieces up to that position; what stands behind does not matter.
    """
    if settings.min_length:
        is_end = jnp.arange(scores.shape[-1]) == settings.end
        scores = jnp.where(is_end & (step < settings.min_length), NEVER, scores)
    if settings.no_repeat_ngram:
        scores = jnp.where(_repeats(texts, step, settings.no_repeat_ngram, scores.shape[-1]), NEVER, scores)
    return scores


def _repeats(texts: jax.Array, step: jax.Array, size: int, pieces: int) -> jax.Array:
    """Which pieces would make an n-gram that is there already. [B, K, T] -> booleans [B, K, V]."""
    count = texts.shape[-1] - size + 1
    if count < 1:
        return jnp.zeros((*texts.shape[:2], pieces), bool)
    first = jnp.arange(count)
    same = jnp.broadcast_to((first + size - 1 <= step) & (step >= size - 1), (*texts.shape[:2], count))
    for place in range(size - 1):  # of the n-gram that would end in the next piece
        last = jnp.take(texts, jnp.maximum(step - size + 2 + place, 0), axis=-1)[..., None]
        same &= texts[..., place:place + count] == last
    following = texts[..., size - 1:]
    rows, columns = (index[..., None] for index in jnp.indices(texts.shape[:2]))
    return jnp.zeros((*texts.shape[:2], pieces), bool).at[rows, columns, following].max(same)
