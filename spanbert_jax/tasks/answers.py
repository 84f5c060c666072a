"""Answers from logits: the best spans over all windows of a question, as text of the context."""
import dataclasses
import math
from typing import Any

import numpy as np

from spanbert_jax.tasks.features import Features
from spanbert_jax.tasks.protocol import NOT_FINITE
from spanbert_jax.tasks.tokenizing import with_format_characters

NO_TEXT = "the context has no text that could contain an answer"

_LARGEST = float(np.finfo(np.float32).max)


@dataclasses.dataclass(frozen=True)
class AnswerLimits:
    """Limits on answers."""
    n_best: int  # maximum number of texts to list
    length: int  # maximum number of tokens per answer
    null_answers: bool  # whether "no answer" is allowed
    null_threshold: float  # null_odds above which "no answer" is predicted


@dataclasses.dataclass(frozen=True)
class AnswerLogits:
    """Logits of every token."""
    start: np.ndarray  # [T] float64, finite: NaN is replaced by the lowest float32
    end: np.ndarray  # [T] likewise
    finite: np.ndarray  # [T] whether both were finite


def finite_logits(start: np.ndarray, end: np.ndarray) -> AnswerLogits:
    """The model's start_logits and end_logits [T], made finite."""
    start, end = np.asarray(start, np.float64), np.asarray(end, np.float64)
    repaired = (np.nan_to_num(logits, nan=-_LARGEST, posinf=_LARGEST, neginf=-_LARGEST) for logits in (start, end))
    return AnswerLogits(next(repaired), next(repaired), np.isfinite(start) & np.isfinite(end))


def best_answer(context: str, features: Features, windows: range, logits: AnswerLogits,
                limits: AnswerLimits) -> dict[str, Any]:
    """The answer to a question, whose features are `windows`, and the n best alternatives.

    Candidates are all spans of a window that start at a token with "max_context" there and are not too long; a span's
    score is the sum of its start and end logits. The reference combines the n_best starts with the n_best ends of all
    positions; changed on purpose, because few or none of these form a valid span, and the best span may not be among
    them.

    Returns:
      "answer", "start", "end": the text and its characters in the context; "" and -1, -1 for no answer.
      "score": its probability among all pairs of a start and an end, listed or not.
      "null_odds": the score of no answer, the lowest over the windows' [CLS] tokens, minus that of the best text.
      "best_answer": the best text.
      "n_best": answers with their logits, the best first, no text twice. Includes no answer if null answers are
        allowed.
      "note": what is wrong, if anything is.
    """
    texts = _distinct(context, np.concatenate([_spans(features, window, logits, limits) for window in windows]),
                      limits.n_best)
    firsts = features.starts[windows.start:windows.stop]
    null_window = windows[int(np.argmin(logits.start[firsts] + logits.end[firsts]))]
    first = features.starts[null_window]
    null = _entry("", -1, -1, float(logits.start[first]), float(logits.end[first]))
    # Without any text, the score of the best is 0, as in the reference.
    odds = null["score"] - (texts[0]["score"] if texts else 0.0)
    given = null if not texts or (limits.null_answers and odds > limits.null_threshold) else texts[0]
    listed = texts + [null] if limits.null_answers or not texts else texts
    total = _log_total(features, windows, null_window, logits)
    for entry in listed:
        entry["probability"] = math.exp(entry["score"] - total)
    answer = {"answer": given["text"], "start": given["start"], "end": given["end"], "score": given["probability"],
              "null_odds": odds, "best_answer": texts[0]["text"] if texts else "",
              "n_best": sorted(listed, key=lambda entry: -entry["score"])}
    finite = logits.finite[features.starts[windows.start]:features.starts[windows.stop]].all()
    if not (texts and finite):
        answer["note"] = "; ".join([NO_TEXT] * (not texts) + [NOT_FINITE] * (not finite))
    return answer


def _log_total(features: Features, windows: range, null_window: int, logits: AnswerLogits) -> float:
    """The logarithm of the sum of exp(score) over all pairs of a start and an end in the same window.

    A probability is then that of the start times that of the end, as in transformers' pipeline, whose [CLS] counts
    as a start and an end too. It normalizes each window on its own, so that scores of different windows cannot be
    compared; here [CLS] counts in the window of "no answer" only, and a start where its token has "max_context".
    """
    totals = []
    for window in windows:
        inside = _context(features, window)
        ends = np.arange(inside.start, inside.stop)
        starts = ends[features.token_columns["max_context"][inside]]
        if window == null_window:
            starts, ends = (np.append(places, features.starts[window]) for places in (starts, ends))
        totals.append(np.logaddexp.reduce(logits.start[starts]) + np.logaddexp.reduce(logits.end[ends]))
    return float(np.logaddexp.reduce(totals))


def _context(features: Features, window: int) -> slice:
    """The tokens of a window's part of the context."""
    at = features.token_slice(window)
    inside = at.start + np.flatnonzero(features.token_columns["char_start"][at] >= 0)
    return slice(inside[0], inside[-1] + 1) if len(inside) else slice(at.stop, at.stop)


def _spans(features: Features, window: int, logits: AnswerLogits, limits: AnswerLimits) -> np.ndarray:
    """The n_best squared best spans of a window, as many as the reference considers, unordered.

    Returns [n, 4] float64: first character, end, start logit, end logit.
    """
    inside = _context(features, window)
    begin, end = inside.start, inside.stop
    starts = np.flatnonzero(features.token_columns["max_context"][begin:end])
    if not len(starts):
        return np.zeros((0, 4))
    longest = min(limits.length, end - begin)
    ends = np.append(logits.end[begin:end], np.full(longest - 1, -np.inf))
    ends = np.lib.stride_tricks.sliding_window_view(ends, longest)[starts]  # by start and length
    scores = (logits.start[begin + starts, None] + ends).ravel()
    count = min(limits.n_best ** 2, len(scores))
    best = np.argpartition(-scores, count - 1)[:count]
    best = best[scores[best] > -np.inf]
    first = begin + starts[best // longest]
    last = first + best % longest
    return np.stack([features.token_columns["char_start"][first], features.token_columns["char_end"][last],
                     logits.start[first], logits.end[last]], axis=1)


def _distinct(context: str, spans: np.ndarray, count: int) -> list[dict[str, Any]]:
    """The best of spans [n, 4] with different texts, the best first; ties go to the earlier span."""
    order = np.lexsort((spans[:, 1], spans[:, 0], -spans[:, 2] - spans[:, 3]))
    entries: dict[str, dict[str, Any]] = {}
    for i in order.tolist():
        *characters, start_logit, end_logit = spans[i].tolist()
        start, end = with_format_characters(context, *map(int, characters))
        covered = context[start:end]
        text = covered.strip()  # of tokens of white space
        start += len(covered) - len(covered.lstrip())
        if text and text not in entries:
            entries[text] = _entry(text, start, start + len(text), start_logit, end_logit)
            if len(entries) == count:
                break
    return list(entries.values())


def _entry(text: str, start: int, end: int, start_logit: float, end_logit: float) -> dict[str, Any]:
    return {"text": text, "start": start, "end": end, "probability": 0.0, "score": start_logit + end_logit,
            "start_logit": start_logit, "end_logit": end_logit}
