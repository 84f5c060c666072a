"""GAP's scores against scikit-learn and values by hand."""
import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from spanbert_jax.tasks.metrics.gap import gap_metrics


def test_scores_by_gender():
    genders = ["feminine", "feminine", "masculine", "masculine", "masculine"]
    truth = [(True, False), (False, True), (True, False), (False, False), (False, True)]
    predicted = [(True, False), (True, False), (True, True), (False, False), (False, True)]
    metrics = gap_metrics(genders, truth, predicted)
    assert metrics == pytest.approx({
        "precision": 60, "recall": 75, "f1": 100 * 6 / 9,
        "feminine_precision": 50, "feminine_recall": 50, "feminine_f1": 50,
        "masculine_precision": 200 / 3, "masculine_recall": 100, "masculine_f1": 80, "bias": 50 / 80})


def test_random_decisions_against_scikit_learn():
    rng = np.random.default_rng(0)
    genders = rng.choice(["masculine", "feminine"], 500).tolist()
    truth, predicted = (rng.random((500, 2)) < share for share in (0.45, 0.6))
    metrics = gap_metrics(genders, truth.tolist(), predicted.tolist())
    feminine = np.array(genders) == "feminine"
    for group, kept in (("", slice(None)), ("feminine_", feminine), ("masculine_", ~feminine)):
        expected = precision_recall_fscore_support(truth[kept].ravel(), predicted[kept].ravel(), average="binary")[:3]
        found = [metrics[f"{group}{name}"] for name in ("precision", "recall", "f1")]
        assert found == pytest.approx([100 * value for value in expected])
    assert metrics["bias"] == pytest.approx(metrics["feminine_f1"] / metrics["masculine_f1"])


@pytest.mark.parametrize("known, other", [("feminine", "masculine"), ("masculine", "feminine")])
def test_no_bias_without_a_hit_for_both_genders(known, other):
    metrics = gap_metrics([known, other], [(True, False)] * 2, [(True, False), (False, True)])
    assert metrics[f"{known}_f1"] == 100 and metrics[f"{other}_f1"] == 0 and "bias" not in metrics
    assert gap_metrics([], [], [])["f1"] == 0
