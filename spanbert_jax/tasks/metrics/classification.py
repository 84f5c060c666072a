"""Metrics of classification and regression, all times 100, as on the GLUE leaderboard."""
import warnings
from collections.abc import Callable, Collection, Sequence

import numpy as np

from spanbert_jax.tasks.metrics.classes import class_scores

CLASSIFICATION = ("accuracy", "f1", "accuracy_f1", "macro_f1", "matthews")
OF_TWO_CLASSES = ("f1", "accuracy_f1")
REGRESSION = ("pearson_spearman",)
MULTI_LABEL = ("accuracy", "micro_f1", "macro_f1")


def classification_metrics(answers: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
    """Accuracy, F1 scores and the Matthews correlation, from 0 to 100 (Matthews from -100).

    Args:
      answers: names of the true classes, n >= 1; one that is not in `labels` always counts as wrong.
      predicted: names of the predicted classes, n of them.
      labels: all classes that can be predicted.

    Returns:
      "accuracy"; "macro_f1", the mean F1 of the classes in `answers` or `predicted`; "matthews", for any number of
      classes, 0 if undefined because all answers or all predictions are one class. For two classes also "f1" of the
      second class, as in the reference (0 if it occurs in neither), and "accuracy_f1", the mean of both, which the
      reference uses for MRPC and QQP.
    """
    import sklearn.metrics  # takes a second

    metrics = {"accuracy": sklearn.metrics.accuracy_score(answers, predicted),
               "macro_f1": sklearn.metrics.f1_score(answers, predicted, average="macro")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about a single class, whose Matthews correlation is 0
        metrics["matthews"] = sklearn.metrics.matthews_corrcoef(answers, predicted)
    if len(labels) == 2:
        answered, guessed = ([name == labels[1] for name in names] for names in (answers, predicted))
        metrics["f1"] = sklearn.metrics.f1_score(answered, guessed, zero_division=0)
        metrics["accuracy_f1"] = (metrics["accuracy"] + metrics["f1"]) / 2
    return {name: 100 * float(value) for name, value in metrics.items()}


def multi_label_metrics(answers: Sequence[Collection[str]], predicted: Sequence[Collection[str]]) -> dict[str, float]:
    """Metrics from 0 to 100 of the classes of n >= 1 texts, of which each has any number.

    Returns:
      "accuracy", the share of the texts whose classes are all right; "micro_f1", over all classes together; "f1/CLASS"
      of each class in answers or predictions, and "macro_f1", their mean.
    """
    pairs = [(set(a), set(p)) for a, p in zip(answers, predicted, strict=True)]
    hits, total = sum(len(a & p) for a, p in pairs), sum(len(a) + len(p) for a, p in pairs)
    scores = {f"f1/{name}": values["f1"] for name, values in class_scores(answers, predicted).items()}
    return {"accuracy": 100 * sum(a == p for a, p in pairs) / len(pairs),
            "micro_f1": 200 * hits / total if total else 0.0,
            "macro_f1": sum(scores.values()) / len(scores) if scores else 0.0, **scores}


def best_threshold(holds: np.ndarray, scores: np.ndarray) -> float:
    """The threshold between scores from 0 to 1 above which a class has the best F1; 0.5 if the class never holds.

    Args:
      holds: [n] bool, whether each text is of the class.
      scores: [n] of the class.

    Returns:
      0.5 if no other is better, else a number halfway between two scores.
    """
    if not holds.any():
        return 0.5
    order = np.argsort(-scores)
    bounds = np.append(scores[order], 0.0)
    found, count = np.cumsum(holds[order]), np.arange(1, len(order) + 1)
    # Texts of equal scores are on the same side of every threshold.
    f1 = np.where(bounds[:-1] > bounds[1:], 2 * found / (count + holds.sum()), 0.0)
    thresholds = (bounds[:-1] + bounds[1:]) / 2
    thresholds = np.where((bounds[1:] <= 0.5) & (0.5 < bounds[:-1]), 0.5, thresholds)
    best = np.flatnonzero(f1 == f1.max())
    return float(thresholds[best[np.argmin(np.abs(thresholds[best] - 0.5))]])


def regression_metrics(answers: Sequence[float], predicted: Sequence[float]) -> dict[str, float]:
    """Correlations, from -100 to 100: "pearson", "spearman" and their mean "pearson_spearman".

    A correlation is 0 if it is undefined because all answers or all predictions are equal.
    """
    from scipy import stats  # takes a second to import

    metrics = {"pearson": _correlation(stats.pearsonr, answers, predicted),
               "spearman": _correlation(stats.spearmanr, answers, predicted)}
    metrics["pearson_spearman"] = (metrics["pearson"] + metrics["spearman"]) / 2
    return {name: 100 * value for name, value in metrics.items()}


def _correlation(function: Callable, answers: Sequence[float], predicted: Sequence[float]) -> float:
    pair = np.asarray(answers, np.float64), np.asarray(predicted, np.float64)
    if any(np.ptp(values) == 0 for values in pair):
        return 0.0
    return float(function(*pair).statistic)
