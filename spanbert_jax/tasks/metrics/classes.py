"""Scores of each class, and which classes are confused."""
import collections
from collections.abc import Mapping, Sequence

import rich.table

from spanbert_jax.common.console import make_table

_SCORES = ("precision", "recall", "f1")
_MOST_CLASSES = 12  # of a confusion table


def class_scores(answers: Sequence[str], predicted: Sequence[str]) -> dict[str, dict[str, float]]:
    """"count" of the answers of each class, and its "precision", "recall" and "f1" in percent, 0 if undefined."""
    import sklearn.metrics  # takes a second

    names = sorted({*answers, *predicted})
    *scores, counts = sklearn.metrics.precision_recall_fscore_support(
        answers, predicted, labels=names, zero_division=0)
    return {name: {"count": int(count), **{score: 100 * float(value) for score, value in
                                           zip(_SCORES, values, strict=True)}}
            for name, count, *values in zip(names, counts, *scores, strict=True)}


def confusion(answers: Sequence[str], predicted: Sequence[str]) -> dict[str, dict[str, int]]:
    """How often each answer was predicted as each class, without zeros: {answer: {prediction: count}}."""
    found: dict[str, dict[str, int]] = {}
    for (answer, guess), count in sorted(collections.Counter(zip(answers, predicted, strict=True)).items()):
        found.setdefault(answer, {})[guess] = count
    return found


def class_table(unit: str, scores: Mapping[str, Mapping[str, float]]) -> rich.table.Table:
    """Scores of each class, the most frequent first."""
    columns = (f"{unit}s", *_SCORES)
    table = make_table("class", *columns, title="Scores by class in percent", right=columns)
    for name, values in sorted(scores.items(), key=lambda item: -item[1]["count"]):
        table.add_row(name, f"{values['count']:,}", *(f"{values[score]:.1f}" for score in _SCORES))
    return table


def confusion_table(unit: str, confusion: Mapping[str, Mapping[str, int]]) -> rich.table.Table:
    """True classes by predicted classes: the most frequent ones, and all others together."""
    totals = collections.Counter({name: sum(guesses.values()) for name, guesses in confusion.items()})
    totals.update(guess for guesses in confusion.values() for guess in guesses)  # some are predicted only
    shown = [name for name, _ in totals.most_common(_MOST_CLASSES)]
    columns = [*shown, *["others"] * (len(totals) > len(shown))]

    def place(name: str) -> int:
        return shown.index(name) if name in shown else len(shown)

    counts = [[0] * len(columns) for _ in columns]
    for answer, guesses in confusion.items():
        for guess, count in guesses.items():
            counts[place(answer)][place(guess)] += count
    table = make_table("answer / prediction", *columns, title=f"Confusion of {unit}s", right=columns)
    for name, row in zip(columns, counts):
        table.add_row(name, *(f"{count:,}" if count else "-" for count in row))
    return table
