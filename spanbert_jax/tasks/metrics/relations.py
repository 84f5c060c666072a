"""Metrics of relations between entities, in percent, as the scorers of TACRED and SemEval-2010 Task 8."""
import re
from collections import Counter
from collections.abc import Sequence

_DIRECTION = re.compile(r"\(e[12],e[12]\)$")


def micro_metrics(answers: Sequence[str], predicted: Sequence[str], negative: str) -> dict[str, float]:
    """Micro-averaged "precision", "recall" and "f1" over all relations but the negative one, and "accuracy" over all.

    As in the scorer of TACRED; values with a denominator of 0 are 0, as in the reference. `negative` is "" if there is
    no negative relation.
    """
    pairs = list(zip(answers, predicted, strict=True))
    correct = sum(answer == guess != negative for answer, guess in pairs)
    guessed, expected = sum(guess != negative for _, guess in pairs), sum(answer != negative for answer, _ in pairs)
    return {**_metrics(correct, guessed, expected),
            "accuracy": _percent(sum(answer == guess for answer, guess in pairs), len(pairs))}


def semeval_metrics(answers: Sequence[str], predicted: Sequence[str], negative: str) -> dict[str, float]:
    """The official metrics of SemEval-2010 Task 8, (9 + 1)-way with direction taken into account.

    For each relation without its direction, a prediction in the wrong direction counts as a wrong prediction and as a
    missed answer. "precision", "recall" and "f1" are means over the relations in `answers` except the negative one; the
    mean F1 is not computed from mean precision and recall. "micro_f1" is from the sums over these relations: predicted
    relations that are not in `answers` are left out. Also "accuracy".

    Args:
      answers, predicted: names of relations, with (e1,e2) or (e2,e1) at the end, or the negative one.
    """
    correct: Counter[str] = Counter()
    guessed: Counter[str] = Counter()
    expected: Counter[str] = Counter()
    for answer, guess in zip(answers, predicted, strict=True):
        correct[_undirected(answer)] += answer == guess
        guessed[_undirected(guess)] += 1
        expected[_undirected(answer)] += 1
    names, counts = [name for name in expected if name != negative], (correct, guessed, expected)
    each = [_metrics(*(count[name] for count in counts)) for name in names]
    means = {metric: sum(values[metric] for values in each) / max(len(each), 1)
             for metric in ("precision", "recall", "f1")}
    micro = _metrics(*(sum(count[name] for name in names) for count in counts))
    return {**means, "micro_f1": micro["f1"], "accuracy": micro_metrics(answers, predicted, negative)["accuracy"]}


def _undirected(relation: str) -> str:
    return _DIRECTION.sub("", relation)


def _metrics(correct: int, guessed: int, expected: int) -> dict[str, float]:
    # F1 is 2PR / (P + R) in terms of the counts, which is also valid for 0.
    return {"precision": _percent(correct, guessed), "recall": _percent(correct, expected),
            "f1": _percent(2 * correct, guessed + expected)}


def _percent(part: int, whole: int) -> float:
    return 100.0 * part / max(whole, 1)
