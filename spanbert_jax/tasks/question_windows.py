"""Overlapping windows of a context, and the tokens of an answer in it."""
from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator

import numpy as np

from spanbert_jax.tasks.files.questions import Question

TokenSpan = tuple[int, int]  # first and last token


def window_starts(count: int, room: int, stride: int) -> range:
    """The first token of each window, until one reaches the end; one window for an empty context.

    Args:
      count: tokens of the context.
      room: maximum number of context tokens per window.
      stride: tokens from the start of one window to the start of the next.
    """
    return range(0, 1 + max(0, math.ceil((count - room) / stride)) * stride, stride)


def best_windows(count: int, room: int, stride: int) -> np.ndarray:
    """[count] the window in which each token has most context, the first of several.

    As in the reference, most context means the largest min(tokens to the left, tokens to the right) plus 0.01 times the
    window's length. A token is in at most room / stride windows, so time is linear in the tokens.
    """
    starts = window_starts(count, room, stride)
    token = np.arange(count)
    first = np.maximum((token - room) // stride + 1, 0)
    best, most = np.zeros(count, np.int64), np.full(count, -np.inf)
    for window in (first + k for k in range(math.ceil(room / stride))) if len(starts) > 1 else ():
        begin = window * stride
        length = np.minimum(room, count - begin)
        context = np.minimum(token - begin, begin + length - 1 - token) + 0.01 * length
        better = (begin <= token) & (window < len(starts)) & (context > most)
        best, most = np.where(better, window, best), np.where(better, context, most)
    return best


def covering_tokens(characters: np.ndarray, start: int, end: int) -> TokenSpan | None:
    """The first and last token that overlap characters [start, end); None if none does.

    Args:
      characters: [n, 2] first character and end of each token, both non-decreasing. Characters that the tokenizer drops
        belong to no token.
    """
    first = int(np.searchsorted(characters[:, 1], start, "right"))
    last = int(np.searchsorted(characters[:, 0], end, "left")) - 1
    return (first, last) if first <= last else None


def exact_tokens(characters: np.ndarray, answers: Iterable[tuple[str, int]]) -> TokenSpan | None:
    """The tokens of the first of several (text, start) answers that neither starts nor ends inside a token."""
    for text, start in answers:
        span = covering_tokens(characters, start, start + len(text))
        if span and characters[span[0], 0] >= start and characters[span[1], 1] <= start + len(text):
            return span
    return None


def other_occurrences(example: Question) -> Iterator[tuple[str, int]]:
    """All occurrences of the answers' texts in the context, for each answer the nearest to its given start first."""
    for text, start in example.answers:
        found = [match.start() for match in re.finditer(f"(?={re.escape(text)})", example.context)]
        yield from ((text, place) for place in sorted(found, key=lambda place: abs(place - start)))
