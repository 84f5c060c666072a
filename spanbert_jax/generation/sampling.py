"""Drawing the next piece."""
from __future__ import annotations

import jax
import jax.numpy as jnp

from spanbert_jax.generation.rules import NEVER
from spanbert_jax.generation.settings import GenerationSettings


def draw(logits: jax.Array, keys: jax.Array, step: jax.Array, settings: GenerationSettings) -> jax.Array:
    """A piece for each text, [B, V] -> [B], by a key of its own [B], so that nobody's draw depends on the others."""
    kept = keep_likely(logits / settings.temperature, settings.top_k, settings.top_p)
    return jax.vmap(lambda key, row: jax.random.categorical(jax.random.fold_in(key, step), row))(keys, kept)


def keep_likely(logits: jax.Array, top_k: int, top_p: float) -> jax.Array:
    """Logits [B, V] with those of less likely pieces at -inf.

    Args:
      top_k: pieces to keep, and others as likely as the last of them; 0 for all.
      top_p: of what is left, the fewest are kept that have this share of the probability together.
    """
    if top_k:
        least = jax.lax.top_k(logits, min(top_k, logits.shape[-1]))[0][:, -1:]
        logits = jnp.where(logits < least, NEVER, logits)
    if top_p < 1:
        ordered = jnp.sort(logits, axis=-1, descending=True)
        before = jnp.cumsum(jax.nn.softmax(ordered), axis=-1) - jax.nn.softmax(ordered)  # of those that are likelier
        least = jnp.min(jnp.where(before < top_p, ordered, jnp.inf), axis=-1, keepdims=True)
        logits = jnp.where(logits < least, NEVER, logits)
    return logits
