"""The search for the best text: piece by piece, or along several hypotheses."""
from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from spanbert_jax.generation.incremental import DecodeState, IncrementalDecoder, reorder_cache
from spanbert_jax.generation.rules import allowed
from spanbert_jax.generation.sampling import draw
from spanbert_jax.generation.settings import GenerationSettings

_NONE = -1e9  # the score of what is not there


class _Line(NamedTuple):
    step: jax.Array
    texts: jax.Array
    written: DecodeState
    ended: jax.Array
    scores: jax.Array


def generate(writer: IncrementalDecoder, tokens: jax.Array, segments: jax.Array, settings: GenerationSettings,
          keys: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """A text for each source.

    Args:
      tokens, segments: [B, S]; segments are 0 for padding.
      keys: [B], of what is drawn for each.

    Returns:
      [B, max_length] pieces without the first, which begins every text, and with padding behind the end; and [B] scores
      as `Settings` has them, of a text that was not searched for its log-probability; no number where the network
      gives none. Nothing is written for rows of padding, and nothing waited for.
    """
    search = _beams if settings.beams > 1 else _one
    written = writer.begin(tokens, segments, settings.beams, settings.max_length)
    texts, scores = search(writer, written, jnp.any(segments != 0, axis=1), settings, keys)
    return texts[:, 1:], scores


def _blank(batch: int, settings: GenerationSettings) -> jax.Array:
    texts = jnp.full((batch, settings.beams, settings.max_length + 1), settings.pad, jnp.int32)
    return texts.at[..., 0].set(settings.start)


def _one(writer: IncrementalDecoder, written: DecodeState, real: jax.Array, settings: GenerationSettings,
         keys: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """One text a source, each piece the likeliest or drawn."""
    def body(line: _Line) -> _Line:
        logits, written = writer.step(line.written, line.texts[..., line.step], line.step)
        open_to = allowed(logits, line.texts, line.step, settings)[:, 0]
        choice = draw(open_to, keys, line.step, settings) if settings.sample else _likeliest(open_to)
        logits = logits[:, 0]
        chance = jnp.take_along_axis(logits, choice[:, None], axis=-1)[:, 0] - jax.nn.logsumexp(logits, axis=-1)
        texts = line.texts.at[:, 0, line.step + 1].set(jnp.where(line.ended, settings.pad, choice))
        return _Line(line.step + 1, texts, written, line.ended | (choice == settings.end),
                     line.scores + jnp.where(line.ended, 0.0, chance))

    start = _Line(jnp.int32(0), _blank(len(real), settings), written, ~real, jnp.zeros(len(real)))
    line = jax.lax.while_loop(lambda line: (line.step < settings.max_length) & ~jnp.all(line.ended), body, start)
    return line.texts[:, 0], line.scores


def _likeliest(logits: jax.Array) -> jax.Array:
    """The first of the pieces with the highest logit, [B, V] -> [B], in a third of the time of `jnp.argmax` on CPUs."""
    pieces = jnp.arange(logits.shape[-1])
    best = jnp.where(logits >= jnp.max(logits, axis=-1, keepdims=True), pieces, pieces[-1])
    return jnp.min(best, axis=-1)


class _Search(NamedTuple):
    """Attributes:
      step: the position up to which hypotheses are known.
      texts, scores: [B, K, T] and [B, K] of those that go on: log-probabilities, the best first.
      ended_texts, ended_scores, ended: of those that have ended: as good as they are, the best first; whether there is
        one.
      open: [B] whether it can get better.
      going_on: whether any of the candidates of the last step did not end.
    """
    step: jax.Array
    texts: jax.Array
    scores: jax.Array
    written: DecodeState
    ended_texts: jax.Array
    ended_scores: jax.Array
    ended: jax.Array
    open: jax.Array
    going_on: jax.Array


def _beams(writer: IncrementalDecoder, written: DecodeState, real: jax.Array, settings: GenerationSettings,
           _: None) -> tuple[jax.Array, jax.Array]:
    """The best of the hypotheses that have ended when no other can, or need, be better.

    By the rules of transformers: of twice as many candidates as there are beams, those among the first half that end
    are kept if they are better than what is, and the best that do not end go on.
    """
    beams, texts = settings.beams, _blank(len(real), settings)
    nothing = jnp.full(texts.shape[:2], _NONE)
    start = _Search(jnp.int32(0), texts, nothing.at[:, 0].set(0.0), written, texts, nothing,
                    jnp.broadcast_to(~real[:, None], nothing.shape), real, jnp.bool_(True))

    def goes_on(search: _Search) -> jax.Array:
        full = jnp.all(search.ended) & settings.early_stopping
        return jnp.any(search.open) & ~full & search.going_on

    def body(search: _Search) -> _Search:
        logits, written = writer.step(search.written, search.texts[..., search.step], search.step)
        chances = allowed(jax.nn.log_softmax(logits), search.texts, search.step, settings)
        scores, hypotheses, pieces = _candidates(chances + search.scores[..., None], 2 * beams)
        step = search.step + 1
        texts = _take(search.texts, hypotheses).at[..., step].set(pieces)
        ends = (pieces == settings.end) | (step == settings.max_length)
        running = jax.lax.top_k(jnp.where(ends, _NONE, scores), beams)
        lengths = jnp.power(step.astype(jnp.float32), settings.length_penalty)
        full = jnp.all(search.ended, axis=1, keepdims=True) & settings.early_stopping
        counts = ends & (jnp.arange(2 * beams) < beams) & ~full & search.open[:, None]
        merged = jnp.concatenate([search.ended_scores, jnp.where(counts, scores / lengths, _NONE)], axis=1)
        ended_scores, chosen = jax.lax.top_k(merged, beams)
        ended_texts = _take(jnp.concatenate([search.ended_texts, texts], axis=1), chosen)
        ended = _take(jnp.concatenate([search.ended, ends & (jnp.arange(2 * beams) < beams)], axis=1), chosen)
        worst = jnp.where(ended, jnp.min(ended_scores, axis=1, keepdims=True), _NONE)
        better = jnp.any(running[0][:, :1] / lengths > worst, axis=1)
        return _Search(step, _take(texts, running[1]), running[0], reorder_cache(written, _take(hypotheses, running[1])),
                       ended_texts, ended_scores, ended, search.open & better, ~jnp.all(ends))

    search = jax.lax.while_loop(goes_on, body, start)
    return search.ended_texts[:, 0], jnp.where(search.ended[:, 0], search.ended_scores[:, 0], jnp.nan)


def _candidates(scores: jax.Array, count: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The best continuations of all hypotheses of a source: scores, hypotheses and pieces, [B, count] each."""
    best, pieces = jax.lax.top_k(scores, min(count, scores.shape[-1]))  # of each, then of all: far less to sort
    best, places = jax.lax.top_k(best.reshape(len(best), -1), count)
    pieces = jnp.take_along_axis(pieces.reshape(len(pieces), -1), places, axis=1)
    return best, places // min(count, scores.shape[-1]), pieces


def _take(values: jax.Array, numbers: jax.Array) -> jax.Array:
    """[B, M, ...] by number [B, K] -> [B, K, ...]."""
    return jnp.take_along_axis(values, numbers.reshape(*numbers.shape, *[1] * (values.ndim - 2)), axis=1)
