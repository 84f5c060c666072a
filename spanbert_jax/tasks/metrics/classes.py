"""Scores of each class, and which classes are confused."""
import collections
from collections.abc import Collection, Mapping, Sequence

import rich.table

from spanbert_jax.common.console import make_table

_SCORES = ("precision", "recall", "f1")
_MOST_CLASSES = 12  # of a confusion table


def class_scores(answers: Sequence[str] | Sequence[Collection[str]],
                 predicted: Sequence[str] | Sequence[Collection[str]]) -> dict[str, dict[str, float]]:
    """"count" of the answers of each class, and its "precision", "recall" and "f1" in percent, 0 if undefined.

    `answers` and `predicted` are the class of each example, or its classes.
    """
    answered, guessed = ([{each} if isinstance(each, str) else set(each) for each in part]
                         for part in (answers, predicted))
    counts, guesses, hits = (collections.Counter(name for names in part for name in names) for part in (
        answered, guessed, [names & others for names, others in zip(answered, guessed, strict=True)]))
    return {name: {"count": counts[name], "precision": _percent(hits[name], guesses[name]),
                   "recall": _percent(hits[name], counts[name]),
                   "f1": _percent(2 * hits[name], counts[name] + guesses[name])}
            for name in sorted({*counts, *guesses})}


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0.0


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
