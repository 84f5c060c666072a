"""Logits to answers: the best spans of a question's windows, as text of the context."""
from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from spanbert_jax.tasks.features import Features
from spanbert_jax.tasks.protocol import NOT_FINITE

NO_TEXT = "the context has no text in which an answer could be"

_LARGEST = float(np.finfo(np.float32).max)


@dataclasses.dataclass(frozen=True)
class Limits:
    """How many answers, and how long.

    Attributes:
      n_best: texts to list at most.
      pieces: in an answer at most.
      null_answers: whether "no answer" may be given.
      null_threshold: the null_odds above which it is.
    """
    n_best: int
    pieces: int
    null_answers: bool
    null_threshold: float


@dataclasses.dataclass(frozen=True)
class Logits:
    """What the network says of every piece.

    Attributes:
      start, end: [T] float64, finite: what is not a number counts as the least of float32.
      finite: [T] whether both were finite.
    """
    start: np.ndarray
    end: np.ndarray
    finite: np.ndarray


def finite_logits(start: np.ndarray, end: np.ndarray) -> Logits:
    """From the network's start_logits and end_logits, [T]."""
    start, end = np.asarray(start, np.float64), np.asarray(end, np.float64)
    mended = [np.nan_to_num(logits, nan=-_LARGEST, posinf=_LARGEST, neginf=-_LARGEST) for logits in (start, end)]
    return Logits(*mended, np.isfinite(start) & np.isfinite(end))


def best_answer(context: str, features: Features, windows: range, logits: Logits, limits: Limits) -> dict[str, Any]:
    """The answer to a question, and its rivals.

    All spans of a window are looked at that begin where it is the best window ("max_context") and are not too long;
    the score of one is the sum of its start and end logits. The reference combines the n_best starts with the n_best
    ends of all positions; changed on purpose, because few of these fit together, or none, and the best span may not be
    among them.

    Args:
      windows: the question's features.

    Returns:
      "answer", "start", "end": the text, and its characters in the context; "" and -1, -1 for no answer.
      "score": its probability.
      "null_odds": the score of no answer, which is the least that a window's [CLS] has, less that of the best text.
      "best_answer": the best text, were no answer none.
      "n_best": all of that and the logits, the best first, no text twice; probabilities add up to 1. No answer is among
        them where it may be given.
      "note": what was wrong, where something was.
    """
    texts = _distinct(context, np.concatenate([_spans(features, window, logits, limits) for window in windows]),
                      limits.n_best)
    first = features.starts[windows.start:windows.stop]
    first = first[np.argmin(logits.start[first] + logits.end[first])]
    null = _entry("", -1, -1, float(logits.start[first]), float(logits.end[first]))
    # Where there is no text, the score of the best is 0, as in the reference.
    odds = null["score"] - (texts[0]["score"] if texts else 0.0)
    given = null if not texts or limits.null_answers and odds > limits.null_threshold else texts[0]
    listed = texts + [null] if limits.null_answers or not texts else texts
    for entry, probability in zip(listed, _softmax([entry["score"] for entry in listed])):
        entry["probability"] = probability
    answer = {"answer": given["text"], "start": given["start"], "end": given["end"], "score": given["probability"],
              "null_odds": odds, "best_answer": texts[0]["text"] if texts else "",
              "n_best": sorted(listed, key=lambda entry: -entry["score"])}
    if notes := _notes(texts, logits.finite[features.starts[windows.start]:features.starts[windows.stop]]):
        answer["note"] = notes
    return answer


def _spans(features: Features, window: int, logits: Logits, limits: Limits) -> np.ndarray:
    """The n_best squared best spans of a window, as many as the reference looks at.

    Returns:
      [n, 4] float64 in no order: first character, end, start logit, end logit.
    """
    at = features.of(window)
    begin, end = at.start + np.count_nonzero(features.token_types[at] == 0), at.stop - 1  # without the last [SEP]
    starts = np.flatnonzero(features.pieces["max_context"][begin:end])
    if not len(starts):
        return np.zeros((0, 4))
    longest = min(limits.pieces, end - begin)
    ends = np.append(logits.end[begin:end], np.full(longest - 1, -np.inf))
    ends = np.lib.stride_tricks.sliding_window_view(ends, longest)[starts]  # by start and length
    scores = (logits.start[begin + starts, None] + ends).ravel()
    count = min(limits.n_best ** 2, len(scores))
    best = np.argpartition(-scores, count - 1)[:count]
    best = best[scores[best] > -np.inf]
    first = begin + starts[best // longest]
    last = first + best % longest
    return np.stack([features.pieces["char_start"][first], features.pieces["char_end"][last],
                     logits.start[first], logits.end[last]], axis=1)


def _distinct(context: str, spans: np.ndarray, count: int) -> list[dict[str, Any]]:
    """The best spans [n, 4] with different texts, the best first, the earlier one where two are as good."""
    order = np.lexsort((spans[:, 1], spans[:, 0], -spans[:, 2] - spans[:, 3]))
    entries: dict[str, dict[str, Any]] = {}
    for i in order.tolist():
        start, end, start_logit, end_logit = spans[i].tolist()
        text = context[int(start):int(end)]
        if text not in entries:
            entries[text] = _entry(text, int(start), int(end), start_logit, end_logit)
            if len(entries) == count:
                break
    return list(entries.values())


def _entry(text: str, start: int, end: int, start_logit: float, end_logit: float) -> dict[str, Any]:
    return {"text": text, "start": start, "end": end, "probability": 0.0, "score": start_logit + end_logit,
            "start_logit": start_logit, "end_logit": end_logit}


def _softmax(scores: Sequence[float]) -> list[float]:
    weights = np.exp(np.array(scores) - max(scores))
    return (weights / weights.sum()).tolist()


def _notes(texts: Sequence[Any], finite: np.ndarray) -> str:
    return "; ".join(([] if texts else [NO_TEXT]) + ([] if finite.all() else [NOT_FINITE]))
