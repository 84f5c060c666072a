"""Sampling of the next token."""
from __future__ import annotations

import jax
import jax.numpy as jnp

from spanbert_jax.generation.rules import FORBIDDEN
from spanbert_jax.generation.settings import GenerationSettings


def sample_tokens(logits: jax.Array, keys: jax.Array, step: jax.Array, settings: GenerationSettings) -> jax.Array:
    """A token for each text, [B, V] -> [B]; each text has its own key [B], so that draws are independent."""
    kept = filter_logits(logits / settings.temperature, settings.top_k, settings.top_p)
    return jax.vmap(lambda key, row: jax.random.categorical(jax.random.fold_in(key, step), row))(keys, kept)


def filter_logits(logits: jax.Array, top_k: int, top_p: float) -> jax.Array:
    """Logits [B, V], -inf for less likely tokens.

    Args:
      top_k: number of tokens to keep, and ties with the last of them; 0 for all.
      top_p: of the remaining tokens, the fewest with this total probability are kept.
    """
    if top_k:
        least = jax.lax.top_k(logits, min(top_k, logits.shape[-1]))[0][:, -1:]
        logits = jnp.where(logits < least, FORBIDDEN, logits)
    if top_p < 1:
        ordered = jnp.sort(logits, axis=-1, descending=True)
        before = jnp.cumsum(jax.nn.softmax(ordered), axis=-1) - jax.nn.softmax(ordered)  # total of more likely tokens
        least = jnp.min(jnp.where(before < top_p, ordered, jnp.inf), axis=-1, keepdims=True)
        logits = jnp.where(logits < least, FORBIDDEN, logits)
    return logits
