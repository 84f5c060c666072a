import pytest

from spanbert_jax.common.errors import UserError
from spanbert_jax.training.durations import RunSize

SIZE = RunSize(batch_size=8, length=128, rows=100, total_steps=500)


@pytest.mark.parametrize("duration,steps", [
    ("7", 7), ("7 steps", 7), ("1 step", 1), ("10k steps", 10_000), ("2.4M steps", 2_400_000),
    ("2 epochs", 25), ("1 epoch", 12), ("1024 tokens", 1), ("1M tokens", 977), ("1e3 examples", 125),
    ("10 percent", 50), ("10%", 50), ("0", 0), ("0 steps", 0), ("1 token", 1)])
def test_steps_of_a_duration(duration, steps):
    assert SIZE.steps("config.train.duration", duration) == steps


@pytest.mark.parametrize("duration", ["", "ten steps", "10 lightyears", "-3 steps", "1 2 steps"])
def test_unreadable_duration_names_the_field(duration):
    with pytest.raises(UserError, match="config.train.duration=.*not a duration"):
        SIZE.steps("config.train.duration", duration)


def test_a_percentage_for_the_length_of_the_run_is_refused():
    with pytest.raises(UserError, match="percentage of the run is not possible"):
        RunSize(8, 128, 100).steps("config.train.duration", "10%")
