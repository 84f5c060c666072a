"""Greedy search, sampling and beam search."""
from typing import NamedTuple

import jax
import jax.numpy as jnp

from spanbert_jax.generation.incremental import DecodeState, IncrementalDecoder, reorder_cache
from spanbert_jax.generation.next_token import apply_rules, sample_tokens
from spanbert_jax.generation.settings import GenerationSettings

_NO_SCORE = -1e9  # score of an absent hypothesis


class _GreedyState(NamedTuple):
    """State of greedy search and sampling, one text per source; see `_BeamState`."""
    step: jax.Array
    texts: jax.Array
    decoder: DecodeState
    ended: jax.Array
    scores: jax.Array


def generate(model: IncrementalDecoder, tokens: jax.Array, segments: jax.Array, settings: GenerationSettings,
             keys: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """Generates a text for each source; none for rows of padding.

    Args:
      tokens, segments: [B, S]; segments are 0 for padding.
      keys: [B] keys of sampling.

    Returns:
      [B, max_length] tokens without the start token, padded after the end token; and [B] scores: of beam search, see
      `GenerationSettings`, else log-probabilities; NaN if the model's are.
    """
    search = _beam_search if settings.beams > 1 else _greedy_search
    decoder = model.start(tokens, segments, settings.beams, settings.max_length)
    texts, scores = search(model, decoder, jnp.any(segments != 0, axis=1), settings, keys)
    return texts[:, 1:], scores


def _start_texts(batch: int, settings: GenerationSettings) -> jax.Array:
    texts = jnp.full((batch, settings.beams, settings.max_length + 1), settings.pad, jnp.int32)
    return texts.at[..., 0].set(settings.start)


def _greedy_search(model: IncrementalDecoder, decoder: DecodeState, real: jax.Array, settings: GenerationSettings,
                   keys: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """One text per source, of the most likely or sampled tokens."""
    def body(state: _GreedyState) -> _GreedyState:
        logits, decoder = model.step(state.decoder, state.texts[..., state.step], state.step)
        allowed = apply_rules(logits, state.texts, state.step, settings)[:, 0]
        if settings.sample and keys is not None:
            choice = sample_tokens(allowed, keys, state.step, settings)
        else:
            choice = _argmax(allowed)
        logits = logits[:, 0]
        score = jnp.take_along_axis(logits, choice[:, None], axis=-1)[:, 0] - jax.nn.logsumexp(logits, axis=-1)
        texts = state.texts.at[:, 0, state.step + 1].set(jnp.where(state.ended, settings.pad, choice))
        return _GreedyState(state.step + 1, texts, decoder, state.ended | (choice == settings.end),
                            state.scores + jnp.where(state.ended, 0.0, score))

    start = _GreedyState(jnp.int32(0), _start_texts(len(real), settings), decoder, ~real, jnp.zeros(len(real)))
    state = jax.lax.while_loop(lambda state: (state.step < settings.max_length) & ~jnp.all(state.ended), body, start)
    return state.texts[:, 0], state.scores


def _argmax(logits: jax.Array) -> jax.Array:
    """First token with the highest logit, [B, V] -> [B], in a third of the time of `jnp.argmax` on CPUs."""
    tokens = jnp.arange(logits.shape[-1])
    best = jnp.where(logits >= jnp.max(logits, axis=-1, keepdims=True), tokens, tokens[-1])
    return jnp.min(best, axis=-1)


class _BeamState(NamedTuple):
    """State of beam search; hypotheses are sorted, the best first."""
    step: jax.Array  # position of the last token
    texts: jax.Array  # [B, K, T] running hypotheses
    scores: jax.Array  # [B, K] their log-probabilities
    decoder: DecodeState  # caches of the running hypotheses
    ended_texts: jax.Array  # [B, K, T] ended hypotheses
    ended_scores: jax.Array  # [B, K] their scores
    ended: jax.Array  # [B, K] whether each of them exists
    open: jax.Array  # [B] whether a source's result can still improve
    running: jax.Array  # whether any candidate of the last step did not end


def _beam_search(model: IncrementalDecoder, decoder: DecodeState, real: jax.Array, settings: GenerationSettings,
                 _: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """The best ended hypothesis of each source.

    As in transformers: each step has twice as many candidates as beams; those of the first half that end compete with
    the hypotheses that have ended before, and the best that do not end are continued.
    """
    beams, texts = settings.beams, _start_texts(len(real), settings)
    absent = jnp.full(texts.shape[:2], _NO_SCORE)
    start = _BeamState(jnp.int32(0), texts, absent.at[:, 0].set(0.0), decoder, texts, absent,
                       jnp.broadcast_to(~real[:, None], absent.shape), real, jnp.bool_(True))

    def unfinished(search: _BeamState) -> jax.Array:
        full = jnp.all(search.ended) & settings.early_stopping
        return jnp.any(search.open) & ~full & search.running

    def body(search: _BeamState) -> _BeamState:
        logits, decoder = model.step(search.decoder, search.texts[..., search.step], search.step)
        log_probabilities = apply_rules(jax.nn.log_softmax(logits), search.texts, search.step, settings)
        scores, hypotheses, tokens = _candidates(log_probabilities + search.scores[..., None], 2 * beams)
        step = search.step + 1
        texts = _take(search.texts, hypotheses).at[..., step].set(tokens)
        ends = (tokens == settings.end) | (step == settings.max_length)
        running = jax.lax.top_k(jnp.where(ends, _NO_SCORE, scores), beams)
        lengths = jnp.power(step.astype(jnp.float32), settings.length_penalty)
        full = jnp.all(search.ended, axis=1, keepdims=True) & settings.early_stopping
        counts = ends & (jnp.arange(2 * beams) < beams) & ~full & search.open[:, None]
        merged = jnp.concatenate([search.ended_scores, jnp.where(counts, scores / lengths, _NO_SCORE)], axis=1)
        ended_scores, chosen = jax.lax.top_k(merged, beams)
        ended_texts = _take(jnp.concatenate([search.ended_texts, texts], axis=1), chosen)
        ended = _take(jnp.concatenate([search.ended, ends & (jnp.arange(2 * beams) < beams)], axis=1), chosen)
        worst = jnp.where(ended, jnp.min(ended_scores, axis=1, keepdims=True), _NO_SCORE)
        better = jnp.any(running[0][:, :1] / lengths > worst, axis=1)
        return _BeamState(step, _take(texts, running[1]), running[0],
                          reorder_cache(decoder, _take(hypotheses, running[1])), ended_texts, ended_scores, ended,
                          search.open & better, ~jnp.all(ends))

    search = jax.lax.while_loop(unfinished, body, start)
    return search.ended_texts[:, 0], jnp.where(search.ended[:, 0], search.ended_scores[:, 0], jnp.nan)


def _candidates(scores: jax.Array, count: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The best continuations of all hypotheses of a source: scores, hypotheses and tokens, [B, count] each."""
    best, tokens = jax.lax.top_k(scores, min(count, scores.shape[-1]))  # per hypothesis, then overall: less to sort
    best, indices = jax.lax.top_k(best.reshape(len(best), -1), count)
    tokens = jnp.take_along_axis(tokens.reshape(len(tokens), -1), indices, axis=1)
    return best, indices // min(count, scores.shape[-1]), tokens


def _take(values: jax.Array, numbers: jax.Array) -> jax.Array:
    """[B, M, ...] by number [B, K] -> [B, K, ...]."""
    return jnp.take_along_axis(values, numbers.reshape(*numbers.shape, *[1] * (values.ndim - 2)), axis=1)
