"""Metrics of classification and regression: by hand, by definition, and where they are undefined."""
import collections
import math
import statistics
import warnings

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_recall_fscore_support

from spanbert_jax.tasks.metrics.classes import class_scores, class_table, confusion, confusion_table
from spanbert_jax.tasks.metrics.classification import (
    best_threshold,
    classification_metrics,
    multi_label_metrics,
    regression_metrics,
)


def f1(answers, predicted, label):
    both = sum(a == p == label for a, p in zip(answers, predicted))
    total = answers.count(label) + predicted.count(label)
    return 2 * both / total if total else 0.0


def matthews(answers, predicted):
    """Gorodkin's correlation of K classes, from the counts of answers and predictions."""
    n, right = len(answers), sum(a == p for a, p in zip(answers, predicted))
    true, guessed = collections.Counter(answers), collections.Counter(predicted)
    across = sum(true[label] * guessed[label] for label in true)
    spread = math.prod(n * n - sum(count ** 2 for count in counts.values()) for counts in (true, guessed))
    return (right * n - across) / math.sqrt(spread) if spread else 0.0


def pearson(x, y):
    x, y = ([value - statistics.fmean(values) for value in values] for values in (x, y))
    return sum(a * b for a, b in zip(x, y)) / math.sqrt(sum(a * a for a in x) * sum(b * b for b in y))


def ranks(values):
    """Ranks from 1; equal values share their mean rank."""
    return [1 + sum(other < value for other in values) + (values.count(value) - 1) / 2 for value in values]


@pytest.mark.parametrize("classes, seed", [(2, 0), (2, 1), (3, 2), (7, 3)])
def test_classification_by_definition(classes, seed):
    random, labels = np.random.default_rng(seed), [f"c{i}" for i in range(classes)]
    answers = random.choice(labels, 200).tolist()
    predicted = [a if keep else b for a, b, keep in zip(answers, random.choice(labels, 200), random.random(200) < 0.6)]
    metrics = classification_metrics(answers, predicted, labels)
    accuracy = statistics.fmean(a == p for a, p in zip(answers, predicted))
    assert metrics["accuracy"] == pytest.approx(100 * accuracy)
    assert metrics["macro_f1"] == pytest.approx(100 * statistics.fmean(f1(answers, predicted, c) for c in labels))
    assert metrics["matthews"] == pytest.approx(100 * matthews(answers, predicted))
    assert ("f1" in metrics) == ("accuracy_f1" in metrics) == (classes == 2)
    if classes == 2:
        assert metrics["f1"] == pytest.approx(100 * f1(answers, predicted, "c1"))
        assert metrics["accuracy_f1"] == pytest.approx(50 * (accuracy + f1(answers, predicted, "c1")))


def test_two_classes_by_hand():
    """Two of three examples of class 1 are found, with one false positive of five."""
    metrics = classification_metrics(list("11100000"), list("11010000"), ("0", "1"))
    assert metrics == pytest.approx({"accuracy": 75, "f1": 100 * 2 / 3, "accuracy_f1": (75 + 200 / 3) / 2,
                                     "macro_f1": 50 * (2 / 3 + 4 / 5), "matthews": 100 * (2 * 4 - 1 * 1) / 15})
    # The second of the labels is the one that is looked for, whichever occurs first.
    assert classification_metrics(list("11100000"), list("11010000"), ("1", "0"))["f1"] == pytest.approx(80)


@pytest.mark.parametrize("answers, predicted, expected", [
    ("0101", "0000", {"accuracy": 50, "f1": 0, "macro_f1": 50 * 2 / 3, "matthews": 0}),
    ("0000", "0101", {"accuracy": 50, "f1": 0, "macro_f1": 50 * 2 / 3, "matthews": 0}),
    ("0000", "0000", {"accuracy": 100, "f1": 0, "macro_f1": 100, "matthews": 0}),
    ("1111", "1111", {"accuracy": 100, "f1": 100, "macro_f1": 100, "matthews": 0}),
    ("0110", "1001", {"accuracy": 0, "f1": 0, "macro_f1": 0, "matthews": -100}),
    ("1", "1", {"accuracy": 100, "f1": 100, "macro_f1": 100, "matthews": 0}),
])
def test_undefined_metrics_are_zero_without_warnings(answers, predicted, expected):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics = classification_metrics(list(answers), list(predicted), ("0", "1"))
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)


def test_a_class_that_cannot_be_predicted_counts_as_wrong():
    metrics = classification_metrics(["a", "b", "new", "b"], ["a", "b", "b", "b"], ("a", "b"))
    assert metrics["accuracy"] == pytest.approx(75)
    assert metrics["macro_f1"] == pytest.approx(100 * (1 + 4 / 5 + 0) / 3)
    assert metrics["f1"] == pytest.approx(80)


@pytest.mark.parametrize("seed", range(3))
def test_regression_by_definition(seed):
    random = np.random.default_rng(seed)
    answers = (random.integers(0, 26, 150) / 5).tolist()  # with ties, as in STS-B
    predicted = [answer + noise for answer, noise in zip(answers, random.normal(0, 2, 150).tolist())]
    metrics = regression_metrics(answers, predicted)
    expected = pearson(answers, predicted), pearson(ranks(answers), ranks(predicted))
    assert metrics == pytest.approx({"pearson": 100 * expected[0], "spearman": 100 * expected[1],
                                     "pearson_spearman": 50 * sum(expected)})


def test_regression_by_hand():
    """Deviations -1, 0, 1 and -13/3, -10/3, 23/3: in order, but on no line."""
    metrics = regression_metrics([1, 2, 3], [0, 1, 12])
    assert metrics["spearman"] == pytest.approx(100)
    assert metrics["pearson"] == pytest.approx(100 * 12 / math.sqrt(2 * (13 ** 2 + 10 ** 2 + 23 ** 2) / 9))
    assert regression_metrics([1, 2, 3], [-2, -4, -6])["pearson_spearman"] == pytest.approx(-100)


@pytest.mark.parametrize("answers, predicted", [([1, 2, 3], [2.5] * 3), ([0.1] * 3, [1, 2, 3]), ([1], [2])])
def test_correlations_with_a_constant_are_zero_without_warnings(answers, predicted):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert set(regression_metrics(answers, predicted).values()) == {0.0}


def cells(table):
    return [list(column.cells) for column in table.columns]


def test_scores_of_each_class_and_their_confusion():
    answers, predicted = ["a", "a", "a", "b", "c"], ["a", "a", "b", "a", "d"]
    scores = class_scores(answers, predicted)
    assert list(scores) == ["a", "b", "c", "d"]
    assert scores["a"] == {"count": 3, **dict.fromkeys(("precision", "recall", "f1"), pytest.approx(200 / 3))}
    assert scores["b"] == {"count": 1, "precision": 0, "recall": 0, "f1": 0} and scores["d"]["count"] == 0
    assert confusion(answers, predicted) == {"a": {"a": 2, "b": 1}, "b": {"a": 1}, "c": {"d": 1}}
    assert cells(class_table("word", scores))[:2] == [["a", "b", "c", "d"], ["3", "1", "1", "0"]]
    assert cells(confusion_table("word", confusion(answers, predicted))) == [
        ["a", "b", "c", "d"], ["2", "1", "-", "-"], ["1", "-", "-", "-"], ["-"] * 4, ["-", "-", "1", "-"]]


def test_rare_classes_share_a_row_and_a_column_of_the_confusion_table():
    names = [f"{number:02}" for number in range(20) for _ in range(2 if number < 12 else 1)]
    table = confusion_table("word", confusion(names, [*names[1:], names[0]]))
    answer, *columns = cells(table)
    assert answer == [*(f"{number:02}" for number in range(12)), "others"]
    counts = np.array([[int(cell.replace("-", "0")) for cell in column] for column in columns]).T
    assert counts.sum() == len(names) and counts[-1].tolist() == [1, *[0] * 11, 7] and counts[11, 12] == 1


def test_several_classes_by_another_library():
    random, names = np.random.default_rng(5), np.array(["a", "b", "c", "d"])
    answers, predicted = random.random((2, 50, 4)) < [0.5, 0.3, 0.1, 0.0]  # "d" never occurs
    given = [[names[row].tolist() for row in part] for part in (answers, predicted)]
    found = multi_label_metrics(*given)
    by_class = f1_score(answers[:, :3], predicted[:, :3], average=None)
    expected = {f"f1/{name}": 100 * value for name, value in zip("abc", by_class)}
    expected |= {"accuracy": 100 * np.mean((answers == predicted).all(axis=1)), "macro_f1": 100 * by_class.mean(),
                 "micro_f1": 100 * f1_score(answers, predicted, average="micro")}
    assert found == pytest.approx(expected) and 0 < found["accuracy"] < found["micro_f1"] < 100
    scores = precision_recall_fscore_support(answers[:, :3], predicted[:, :3])
    for name, precision, recall, f1, count in zip("abc", *scores, strict=True):
        assert class_scores(*given)[name] == pytest.approx(
            {"count": count, "precision": 100 * precision, "recall": 100 * recall, "f1": 100 * f1})
    assert list(class_scores(*given)) == ["a", "b", "c"]
    assert multi_label_metrics([[]], [[]]) == {"accuracy": 100.0, "micro_f1": 0.0, "macro_f1": 0.0}


@pytest.mark.parametrize("seed", range(5))
def test_the_best_threshold_by_trying_all(seed):
    random = np.random.default_rng(seed)
    scores, holds = random.integers(0, 12, 40) / 12, random.random(40) < 0.3
    tried = {threshold: f1_score(holds, scores > threshold, zero_division=0) for threshold in np.linspace(0, 1, 200)}
    found = best_threshold(holds, scores)
    assert f1_score(holds, scores > found) == pytest.approx(max(tried.values()))
    assert np.abs(scores - found).min() > 1e-3 or found == 0.5


def test_thresholds_stay_in_the_middle_where_nothing_is_better():
    assert best_threshold(np.array([True, False, True]), np.array([0.9, 0.2, 0.6])) == 0.5
    assert best_threshold(np.array([False, False]), np.array([0.9, 0.2])) == 0.5
    assert best_threshold(np.array([True, False, True]), np.array([0.4, 0.2, 0.3])) == pytest.approx(0.25)
