"""Metrics of relations, compared with scikit-learn and an example by hand, and in edge cases."""
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from spanbert_jax.tasks.metrics.relations import micro_metrics, semeval_metrics

NAMES = [f"{name}({direction})" for name in ("Cause-Effect", "Entity-Origin", "Message-Topic")
         for direction in ("e1,e2", "e2,e1")] + ["Other"]


def random_names(seed, count=400):
    random = np.random.default_rng(seed)
    answers = random.choice(NAMES, count)
    return answers.tolist(), np.where(random.random(count) < 0.4, answers, random.choice(NAMES, count)).tolist()


@pytest.mark.parametrize("negative", ["Other", "Cause-Effect(e1,e2)", ""])
@pytest.mark.parametrize("seed", range(3))
def test_micro_metrics_equal_scikit_learn(seed, negative):
    answers, predicted = random_names(seed)
    positive = [name for name in NAMES if name != negative]
    precision, recall, f1, _ = sklearn_metrics.precision_recall_fscore_support(
        answers, predicted, labels=positive, average="micro")
    expected = {"precision": precision, "recall": recall, "f1": f1,
                "accuracy": sklearn_metrics.accuracy_score(answers, predicted)}
    assert micro_metrics(answers, predicted, negative) == pytest.approx(
        {name: 100 * value for name, value in expected.items()})


def test_micro_metrics_by_hand():
    answers = ["no_relation", "no_relation", "born", "born", "died", "unheard_of"]
    predicted = ["no_relation", "born", "born", "died", "no_relation", "died"]
    # Four guesses, one of them right; four relations.
    assert micro_metrics(answers, predicted, "no_relation") == pytest.approx(
        {"precision": 25, "recall": 25, "f1": 25, "accuracy": 100 / 3})


@pytest.mark.parametrize("answers, predicted", [
    (["N", "N"], ["N", "N"]), (["a", "N"], ["N", "N"]), (["N", "N"], ["a", "N"]), (["a"], ["b"]), ([], [])])
@pytest.mark.parametrize("metric", [micro_metrics, semeval_metrics])
def test_metrics_without_counts_are_0(metric, answers, predicted):
    found = metric(answers, predicted, "N")
    assert found["precision"] == found["recall"] == found["f1"] == 0


def test_semeval_metrics_by_hand():
    answers = ["A-B(e1,e2)"] * 3 + ["A-B(e2,e1)"] + ["C-D(e1,e2)"] * 2 + ["Other"] * 2
    predicted = ["A-B(e1,e2)", "A-B(e2,e1)", "C-D(e1,e2)", "A-B(e2,e1)", "C-D(e1,e2)", "Other", "A-B(e1,e2)", "Other"]
    # A-B: asked 4 times, guessed 4 times (once the wrong way round, once for Other), right twice: P = R = F1 = 1/2.
    # C-D: asked twice, guessed twice, right once: P = R = F1 = 1/2. Directed: 3 of 6 guesses, 3 of 6 answers.
    assert semeval_metrics(answers, predicted, "Other") == pytest.approx(
        {"precision": 50, "recall": 50, "f1": 50, "micro_f1": 50, "accuracy": 50})
    predicted[1] = "A-B(e1,e2)"
    # A-B: now right 3 times of 4 and 4: 3/4.
    assert semeval_metrics(answers, predicted, "Other") == pytest.approx(
        {"precision": 62.5, "recall": 62.5, "f1": 62.5, "micro_f1": 100 * 4 / 6, "accuracy": 62.5})


def test_the_mean_f1_is_the_mean_of_f1s():
    # A-B: P = 1, R = 1/2, F1 = 2/3. C-D: P = 1/2, R = 1, F1 = 2/3. Of the mean P and R it would be 3/4.
    answers, predicted = ["A-B(e1,e2)"] * 2 + ["C-D(e2,e1)"], ["A-B(e1,e2)", "C-D(e2,e1)", "C-D(e2,e1)"]
    found = semeval_metrics(answers, predicted, "Other")
    assert (found["precision"], found["recall"], found["f1"]) == pytest.approx((75, 75, 200 / 3))


def test_predicted_relations_that_no_answer_has_are_left_out():
    """As in the official scorer; the F1 of all predictions would be 66.67."""
    found = semeval_metrics(["Cause-Effect(e1,e2)", "Other"], ["Cause-Effect(e1,e2)", "Message-Topic(e1,e2)"], "Other")
    assert found == {"precision": 100, "recall": 100, "f1": 100, "micro_f1": 100, "accuracy": 50}


@pytest.mark.parametrize("seed", range(3))
def test_semeval_metrics_from_a_confusion_matrix(seed):
    answers, predicted = random_names(seed)
    matrix = sklearn_metrics.confusion_matrix(answers, predicted, labels=NAMES)
    f1s = []
    for first in (0, 2, 4):
        both = slice(first, first + 2)
        precision = matrix[both, both].trace() / matrix[:, both].sum()
        recall = matrix[both, both].trace() / matrix[both].sum()
        f1s.append(2 * precision * recall / (precision + recall))
    found = semeval_metrics(answers, predicted, "Other")
    assert found["f1"] == pytest.approx(100 * np.mean(f1s))
    assert found["micro_f1"] == pytest.approx(micro_metrics(answers, predicted, "Other")["f1"])
