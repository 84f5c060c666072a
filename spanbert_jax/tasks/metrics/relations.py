"""Figures of relations between entities, in percent: those of the TACRED scorer and of SemEval-2010 Task 8."""
from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

_DIRECTION = re.compile(r"\(e[12],e[12]\)$")


def micro_metrics(answers: Sequence[str], predicted: Sequence[str], negative: str) -> dict[str, float]:
    """Micro-averaged "precision", "recall" and "f1" over all relations but the negative one, and "accuracy" over all.

    As the scorer of TACRED; what has a denominator of 0 is 0, as in the reference.

    Args:
      answers, predicted: names of relations.
      negative: the name that says that there is none; "" where no name does.
    """
    pairs = list(zip(answers, predicted, strict=True))
    right = sum(answer == guess != negative for answer, guess in pairs)
    guessed, asked = sum(guess != negative for _, guess in pairs), sum(answer != negative for answer, _ in pairs)
    return {**_figures(right, guessed, asked),
            "accuracy": _percent(sum(answer == guess for answer, guess in pairs), len(pairs))}


def semeval_metrics(answers: Sequence[str], predicted: Sequence[str], negative: str) -> dict[str, float]:
    """The official figures of SemEval-2010 Task 8, (9 + 1)-way with direction taken into account.

    For each relation without its direction, a prediction of it in the wrong direction counts as wrong, both as a
    prediction and as an answer that was missed. "precision", "recall" and "f1" are means over the relations among the
    answers but the negative one; the mean F1 is not made of the mean precision and recall. Also "micro_f1" and
    "accuracy".

    Args:
      answers, predicted: names of relations, with (e1,e2) or (e2,e1) at the end, or the negative one.
    """
    right, guessed, asked = (Counter[str]() for _ in range(3))
    for answer, guess in zip(answers, predicted, strict=True):
        right[_undirected(answer)] += answer == guess
        guessed[_undirected(guess)] += 1
        asked[_undirected(answer)] += 1
    each = [_figures(right[name], guessed[name], asked[name]) for name in asked if name != negative]
    means = {figure: sum(of[figure] for of in each) / max(len(each), 1) for figure in ("precision", "recall", "f1")}
    micro = micro_metrics(answers, predicted, negative)
    return {**means, "micro_f1": micro["f1"], "accuracy": micro["accuracy"]}


def _undirected(relation: str) -> str:
    return _DIRECTION.sub("", relation)


def _figures(right: int, guessed: int, asked: int) -> dict[str, float]:
    # 2PR / (P + R) with the counts put in, which holds for 0 as well.
    return {"precision": _percent(right, guessed), "recall": _percent(right, asked),
            "f1": _percent(2 * right, guessed + asked)}


def _percent(part: int, whole: int) -> float:
    return 100.0 * part / max(whole, 1)
