"""The next token: rules on minimum length and repeated n-grams, and sampling."""
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
