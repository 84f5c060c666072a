"""Figures of classification and regression, all times 100, as the GLUE board prints them."""
from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np

CLASSIFICATION = ("accuracy", "f1", "accuracy_f1", "macro_f1", "matthews")
OF_TWO_CLASSES = ("f1", "accuracy_f1")
REGRESSION = ("pearson_spearman",)


def classification_metrics(answers: Sequence[str], predicted: Sequence[str],
                           labels: Sequence[str]) -> dict[str, float]:
    """Accuracy, F1 scores and the Matthews correlation, from 0 to 100 (Matthews from -100).

    Args:
      answers: names of the true classes, n of them and at least one; one that is not in `labels` is always missed.
      predicted: names of the predicted classes, n of them.
      labels: the classes that can be predicted.

    Returns:
      "accuracy"; "macro_f1", the mean F1 of the classes that occur in `answers` or `predicted`; "matthews", of any
      number of classes, 0 where it is undefined, since all answers or all predictions are one class. Of two classes
      also "f1", that of the second one, as the reference (0 where it is neither an answer nor predicted), and
      "accuracy_f1", the mean of the two, by which the reference tells MRPC and QQP.
    """
    from sklearn import metrics  # takes a second to import

    figures = {"accuracy": metrics.accuracy_score(answers, predicted),
               "macro_f1": metrics.f1_score(answers, predicted, average="macro")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that there is a single class, whose Matthews correlation is 0
        figures["matthews"] = metrics.matthews_corrcoef(answers, predicted)
    if len(labels) == 2:
        answered, guessed = ([name == labels[1] for name in names] for names in (answers, predicted))
        figures["f1"] = metrics.f1_score(answered, guessed, zero_division=0)
        figures["accuracy_f1"] = (figures["accuracy"] + figures["f1"]) / 2
    return {name: 100 * float(figure) for name, figure in figures.items()}


def regression_metrics(answers: Sequence[float], predicted: Sequence[float]) -> dict[str, float]:
    """Correlations, from -100 to 100: "pearson", "spearman" and their mean "pearson_spearman".

    A correlation is undefined where all answers or all predictions are equal; it counts as 0.
    """
    from scipy import stats  # takes a second to import

    figures = {"pearson": _correlation(stats.pearsonr, answers, predicted),
               "spearman": _correlation(stats.spearmanr, answers, predicted)}
    figures["pearson_spearman"] = (figures["pearson"] + figures["spearman"]) / 2
    return {name: 100 * figure for name, figure in figures.items()}


def _correlation(of: Callable, answers: Sequence[float], predicted: Sequence[float]) -> float:
    pair = np.asarray(answers, np.float64), np.asarray(predicted, np.float64)
    if any(np.ptp(values) == 0 for values in pair):
        return 0.0
    return float(of(*pair).statistic)
