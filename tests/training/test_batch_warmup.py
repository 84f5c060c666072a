"""Batches that grow at the start of a run."""
import numpy as np
import pytest

from spanbert_jax.common.errors import UserError
from spanbert_jax.corpus import RowOrder
from spanbert_jax.pretraining.config import PretrainingTrainSettings, as_pretraining_config, default_config, run_size
from spanbert_jax.training.batch_warmup import BatchWarmup, batch_indices
from spanbert_jax.training.durations import RunSize
from spanbert_jax.training.experiment import build_experiment


@pytest.mark.parametrize("parts,steps,sizes", [
    (4, 9, [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4]), (3, 3, [1, 1, 2, 3]), (2, 4, [1, 1, 1, 1, 2]), (4, 2, [1, 2, 4]),
    (3, 0, [3, 3]), (1, 0, [1, 1])])
def test_each_number_of_parts_is_used_for_as_many_steps(parts, steps, sizes):
    warmup = BatchWarmup(parts, steps)
    assert [warmup.used(step) for step in range(len(sizes))] == sizes
    assert [warmup.used_before(step) for step in range(len(sizes) + 1)] == [0, *np.cumsum(sizes)]
    if steps:
        assert [int(warmup.used_in_jit(np.int32(step))) for step in range(len(sizes))] == sizes
    for step in range(len(sizes) + 20):  # as many batches as the first steps use take these steps
        assert warmup.steps_of(warmup.used_before(step) / parts) == pytest.approx(step)


def test_the_rows_of_each_step_follow_those_of_the_step_before():
    order, warmup = RowOrder(40, 12, seed=3), BatchWarmup(3, 4)
    indices = batch_indices(order, warmup, 12)
    used = [indices(step)[np.arange(12) % 3 < warmup.used(step)] for step in range(8)]
    assert [len(rows) for rows in used] == [4, 4, 8, 8, 12, 12, 12, 12]
    np.testing.assert_array_equal(np.concatenate(used), order.row_numbers(0, 72))
    assert sorted(np.concatenate(used)[:40]) == list(range(40))
    np.testing.assert_array_equal(batch_indices(order, BatchWarmup(3), 12)(5), order.indices(5))


def test_durations_of_data_count_what_smaller_batches_use():
    config = default_config()
    config.train.update(dict(batch_size=4608, accumulation=6, batch_warmup="50B tokens"))
    size, warmup = run_size(as_pretraining_config(config), length=1024, rows=10**9)
    rows = warmup.used_before(warmup.steps) * 768
    assert rows * 1024 == pytest.approx(50e9, rel=1e-3)
    # 3B tokens are 3,815 steps of 768 rows of 1,024 tokens; full batches would need 636.
    assert size.steps("schedule.warmup", "3B tokens", warmup.steps_of) == 3815
    assert size.steps("schedule.warmup", "500 steps", warmup.steps_of) == 500


@pytest.mark.parametrize("fields", [{"batch_warmup": "10 steps"}, {"batch_warmup": "5 percent", "accumulation": 2}])
def test_a_batch_of_one_part_cannot_grow_and_a_percentage_is_not_known_yet(fields):
    with pytest.raises(UserError, match="train.batch_warmup"):
        PretrainingTrainSettings(**fields).validate("train")


def test_a_growth_that_is_longer_than_the_run_is_refused():
    config = default_config()
    config.train.duration = "10 steps"
    with pytest.raises(UserError, match="config.train.batch_warmup: the batch grows over 11 steps, and the run has 10"):
        build_experiment(as_pretraining_config(config), None, None, None, RunSize(4, 8, 100), BatchWarmup(2, 11))
