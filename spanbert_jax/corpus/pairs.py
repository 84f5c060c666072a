"""Pairs of texts with next-sentence labels: the baseline that SpanBERT is compared with."""
import dataclasses
from collections.abc import Sequence

import numpy as np

NEXT, RANDOM = 0, 1


@dataclasses.dataclass(frozen=True)
class Pair:
    """Half-open token ranges of two texts in the chunk, and the label: NEXT or RANDOM."""
    first: tuple[int, int]
    second: tuple[int, int]
    label: int


def pair_blocks(documents: Sequence[Sequence[int]], budget: int, short_probability: float,
                rng: np.random.Generator) -> tuple[list[Pair], int]:
    """Builds pairs like the reference's BlockPairDataset, with two bugs fixed.

    The reference never draws the last document as the random one, and fails if there is only one document. Here the
    random document is uniform over all other documents of the chunk; if there is none, every label is NEXT.

    Args:
      documents: sentence bounds of each document: token offsets of its start, then of the end of each sentence.
      budget: maximum number of tokens in both texts together.
      short_probability: probability that a document uses a uniformly drawn shorter target length.

    Returns:
      The pairs, and the number of tokens that truncation dropped.
    """
    pairs, dropped = [], 0
    full = [d for d, bounds in enumerate(documents) if bounds[-1] > bounds[0]]
    for d in full:
        target = int(rng.integers(2, budget)) if budget > 2 and rng.random() < short_probability else budget
        others = [other for other in full if other != d]
        bounds, start = documents[d], 0
        while start < len(bounds) - 1:
            stop = start + 1
            while stop < len(bounds) - 1 and bounds[stop] - bounds[start] < target:
                stop += 1
            pair, start = _pair(documents, d, start, stop, target, others, rng)
            cut = _truncate(pair, budget, rng)
            dropped += _size(pair) - _size(cut)
            pairs.append(cut)
    return pairs, dropped


def _pair(documents: Sequence[Sequence[int]], d: int, start: int, stop: int, target: int, others: list[int],
          rng: np.random.Generator) -> tuple[Pair, int]:
    """Makes one pair from sentences start..stop of document d. Also returns the first sentence that it does not use."""
    bounds, count = documents[d], stop - start
    middle = start + (int(rng.integers(1, count - 1)) if count > 2 else 1)
    if others and (count == 1 or rng.random() < 0.5):
        first = (bounds[start], bounds[middle])
        other = documents[others[int(rng.integers(len(others)))]]
        begin = end = int(rng.integers(len(other) - 1))
        while end < len(other) - 1 and (end == begin or other[end] - other[begin] < target - (first[1] - first[0])):
            end += 1
        return Pair(first, (other[begin], other[end]), RANDOM), middle
    if count == 1:  # no other sentence or document: the pair is the two halves of the sentence
        half = (bounds[start] + bounds[stop] + 1) // 2
        return Pair((bounds[start], half), (half, bounds[stop]), NEXT), stop
    return Pair((bounds[start], bounds[middle]), (bounds[middle], bounds[stop]), NEXT), stop


def _truncate(pair: Pair, budget: int, rng: np.random.Generator) -> Pair:
    """Drops tokens from the longer text (the second if equal), each at its front or back with equal probability."""
    excess = _size(pair) - budget
    if excess <= 0:
        return pair
    a, b = (end - start for start, end in (pair.first, pair.second))
    drop_a, drop_b = min(excess, max(a - b, 0)), min(excess, max(b - a, 0))
    left = excess - drop_a - drop_b
    return Pair(_shorten(pair.first, drop_a + left // 2, rng), _shorten(pair.second, drop_b + (left + 1) // 2, rng),
                pair.label)


def _shorten(span: tuple[int, int], drop: int, rng: np.random.Generator) -> tuple[int, int]:
    front = int(rng.binomial(drop, 0.5)) if drop else 0
    return span[0] + front, span[1] - (drop - front)


def _size(pair: Pair) -> int:
    return pair.first[1] - pair.first[0] + pair.second[1] - pair.second[0]
