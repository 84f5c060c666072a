"""Finds the mentions of a document and the best antecedent of each, from hidden states: blocks of bounded size."""
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from spanbert_jax.model.coreference import CoreferenceScorer, pair_scores
from spanbert_jax.model.coreference_categories import MentionWords, mention_words

_WORDS = 512  # words, or mentions, that a compiled function takes at a time
_ANTECEDENTS = (256, 2048)  # possible antecedents at a time: of small and of large documents
# Log odds of being the first word of a mention, below which no mention is scored: 5 %. With 50 % too many mentions are
# missed that an antecedent would confirm, above all where chains of one mention are not annotated.
MIN_FIRST_WORD_LOG_ODDS = -3.0
NONE = -1  # the antecedent of a mention without one


class Antecedents(NamedTuple):
    """M mentions of a document, ascending by first and last word, and the best antecedent of each."""
    mentions: np.ndarray  # [M, 2] first word and the one after the last
    mention_scores: np.ndarray  # [M] log odds of being a mention
    antecedents: np.ndarray  # [M] number of the best antecedent, NONE if none is better
    scores: np.ndarray  # [M] score of the best antecedent; no antecedent has 0


@dataclasses.dataclass(frozen=True)
class AntecedentFinder:
    """Finds mentions and antecedents by a scorer; arrays of pairs are never larger than a block."""
    scorer: CoreferenceScorer
    max_span_width: int  # words of a mention, at most
    top_span_ratio: float  # mentions whose antecedents are scored, as a share of the words

    def __call__(self, params: Any, first: np.ndarray, last: np.ndarray, classes: np.ndarray | None = None,
                 given: np.ndarray | None = None, only_given: bool = False) -> Antecedents:
        """The mentions of a document of n words, and their antecedents.

        Args:
          params: of the scorer.
          first, last: [n, D] hidden states of the first and the last token of each word.
          classes: [n] class of each word, for the categories of pairs; None without categories.
          given: [M, 2] mentions that are known, ascending.
          only_given: whether there are no others.
        """
        mentions = np.zeros((0, 2), np.int64) if given is None else given
        if not only_given:
            mentions = np.unique(np.concatenate([mentions, self._find(params, first, last)]), axis=0)
        vectors = self._vectors(params, first, last, mentions, classes)
        best, number = self._best(vectors, mentions[:, 0])
        return Antecedents(mentions, vectors.scores, np.where(best > 0, number, NONE), best)

    def _find(self, params: Any, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        """[M, 2] the mentions with the best scores among those whose first word may be the first of one."""
        found, scores = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.float32)]
        for start in range(0, len(first), _WORDS):
            starts, ends = _cut(first, start, _WORDS), _cut(last, start, _WORDS + self.max_span_width - 1)
            first_scores, block = jax.device_get(self._mention_scores(params, starts[None], ends[None]))
            possible = np.flatnonzero(first_scores[0, :len(first) - start] > MIN_FIRST_WORD_LOG_ODDS)
            word, width = np.nonzero(start + possible[:, None] + np.arange(self.max_span_width) < len(first))
            word = possible[word]
            found.append(np.stack([start + word, start + word + width + 1], axis=1))
            scores.append(block[0][word, width])
        mentions, ranked = np.concatenate(found), np.concatenate(scores)
        best = np.argsort(-ranked, kind="stable")[:int(np.ceil(self.top_span_ratio * len(first)))]
        return mentions[np.sort(best)]

    def _vectors(self, params: Any, first: np.ndarray, last: np.ndarray, mentions: np.ndarray,
                 classes: np.ndarray | None) -> "_Vectors":
        def compute(block: np.ndarray) -> "_Vectors":
            antecedents, vectors, distances, scores = self._pair_vectors(
                params, _cut(first[block[:, 0]], 0, _WORDS)[None], _cut(last[block[:, 1] - 1], 0, _WORDS)[None])
            words = None
            if classes is not None:
                reach = np.minimum(block[:, :1] + np.arange(self.max_span_width), len(classes) - 1)
                words = _mention_words(_cut(classes[reach], 0, _WORDS), _cut(block[:, 1] - block[:, 0], 0, _WORDS))
            return jax.device_get(_Vectors(antecedents[0], vectors[0], distances[0], scores[0], words))

        blocks = [compute(block) for block in _blocks(mentions, _WORDS)]
        if not blocks:
            return _Vectors(*(np.zeros((0, 1), np.float32),) * 3, np.zeros(0, np.float32), None)
        return jax.tree.map(lambda *parts: np.concatenate(parts)[:len(mentions)], *blocks)

    def _best(self, vectors: "_Vectors", starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[M] the score of the best antecedent of each mention, 0 if none is better, and its number."""
        count = len(starts)
        best, number = np.zeros(count, np.float32), np.full(count, NONE)
        size = _ANTECEDENTS[count > _ANTECEDENTS[0]]
        for query in range(0, count, _ANTECEDENTS[0]):
            rows = slice(query, min(count, query + _ANTECEDENTS[0]))
            queries = _cut_all((vectors.vectors, vectors.distances, vectors.scores, starts, vectors.words), query,
                               _ANTECEDENTS[0])
            for begin in range(0, rows.stop, size):
                block = _cut_all((vectors.antecedents, vectors.scores, starts, vectors.words), begin, size)
                value, at = jax.device_get(_best_of_block(queries, block, query, begin))
                better = value[:rows.stop - query] > best[rows]
                best[rows] = np.where(better, value[:rows.stop - query], best[rows])
                number[rows] = np.where(better, at[:rows.stop - query] + begin, number[rows])
        return best, number

    @functools.cached_property
    def _mention_scores(self) -> Any:
        return jax.jit(lambda params, first, last: self.scorer.apply({"params": params}, first, last,
                                                                     method="mention_scores"))

    @functools.cached_property
    def _pair_vectors(self) -> Any:
        def vectors(params: Any, first: jax.Array, last: jax.Array) -> tuple[jax.Array, ...]:
            variables = {"params": params}
            return (*self.scorer.apply(variables, first, last, method="pair_vectors"),
                    self.scorer.apply(variables, first, last, method="scores_of"))

        return jax.jit(vectors)


class _Vectors(NamedTuple):
    """`CoreferenceScorer.pair_vectors`, the scores and the words of M mentions."""
    antecedents: np.ndarray  # [M, 2H]
    vectors: np.ndarray  # [M, K*2H]
    distances: np.ndarray  # [M, distances]
    scores: np.ndarray  # [M]
    words: MentionWords | None  # None without categories of pairs


_mention_words = jax.jit(mention_words)


@jax.jit
def _best_of_block(queries: tuple[Any, ...], block: tuple[Any, ...], query: jax.Array,
                   begin: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The best score of each query with an antecedent before it in a block, and the antecedent's number there."""
    values = pair_scores(*queries, *block)
    before = begin + jnp.arange(values.shape[1]) < query + jnp.arange(values.shape[0])[:, None]
    values = jnp.where(before, values, -jnp.inf)
    return jnp.max(values, axis=1), jnp.argmax(values, axis=1)


def _blocks(values: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (values[start:start + size] for start in range(0, len(values), size))


def _cut(values: np.ndarray, start: int, size: int) -> np.ndarray:
    """`size` entries from `start` on, zeros beyond the last one."""
    part = values[start:start + size]
    return np.pad(part, [(0, size - len(part)), *[(0, 0)] * (values.ndim - 1)])


def _cut_all(values: tuple[Any, ...], start: int, size: int) -> tuple[Any, ...]:
    return jax.tree.map(lambda array: _cut(array, start, size), values)
