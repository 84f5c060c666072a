"""The best evaluation of a run."""
from spanbert_jax.training.loop import BestTracker


def test_steps_that_score_better_than_all_before_are_kept():
    earlier = {20: {"f1": 0.5}, 10: {"f1": 0.4}, 30: {"f1": 0.5}, 40: {"accuracy": 9.0}, 50: {"f1": None}}
    best = BestTracker("f1", earlier)
    assert best.steps == (10, 20) and best.is_best(20) and not best.is_best(30)
    steps = best.steps
    best.update(60, {"f1": 0.6})
    best.update(70, {"f1": 0.1})
    assert best.steps == (10, 20, 60) and best.is_best(60) and not best.is_best(70)
    assert steps == (10, 20)  # what another thread has read does not change


def test_without_a_metric_there_is_no_best():
    best = BestTracker("", {10: {"f1": 0.4}})
    best.update(20, {"f1": 0.5})
    assert best.steps == () and not best.is_best(20)
