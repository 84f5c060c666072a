"""Retained steps, on hand-computed examples."""
import pytest

from spanbert_jax.checkpoints.retention import retained_steps


@pytest.mark.parametrize("keep,keep_every,expected", [
    (1, 0, {35: "newest 1"}),
    (2, 0, {30: "newest 2", 35: "newest 2"}),
    (9, 0, {5: "newest 9", 10: "newest 9", 20: "newest 9", 30: "newest 9", 35: "newest 9"}),
    (1, 10, {10: "every 10 steps", 20: "every 10 steps", 30: "every 10 steps", 35: "newest 1"}),
    (2, 15, {20: "every 15 steps", 30: "newest 2, every 15 steps", 35: "newest 2"}),  # 20 is the first from 15 on
    (1, 1000, {35: "newest 1"}),
])
def test_newest_steps_and_one_per_interval_are_kept(keep, keep_every, expected):
    assert retained_steps([20, 5, 35, 10, 30], keep, keep_every) == expected


@pytest.mark.parametrize("best,expected", [
    (10, {10: "best score", 35: "newest 1"}), (35, {35: "newest 1, best score"})])
def test_the_best_is_kept_too(best, expected):
    assert retained_steps([20, 5, 35, 10, 30], 1, 0, best) == expected


def test_reasons_have_thousands_separators():
    assert retained_steps([2000], 1, 1000) == {2000: "newest 1, every 1,000 steps"}


def test_no_steps():
    assert retained_steps([], 3, 10) == {}
