"""Skipping bad updates: the rule against numpy medians, and its effect on a run."""
import jax
import numpy as np
import optax
import pytest

from spanbert_jax.training.skipping import MINIMUM, WINDOW, empty_history, is_bad, record_update
from tests.training.small import Trainer, losses, small_config


def history(losses, gradient_norms):
    """The history after some applied updates."""
    values, step = empty_history(), jax.jit(record_update)
    for loss, gradient_norm in zip(losses, gradient_norms):
        values = step(values, loss, gradient_norm, False)
    return values


@pytest.mark.parametrize("updates", [MINIMUM, 100, WINDOW + 40])
def test_the_limit_follows_from_numpy_medians_of_the_last_updates(updates):
    random = np.random.default_rng(updates)
    losses, norms = (random.normal(mean, 0.1, updates).astype(np.float32) for mean in (8, 2))
    past = history(losses, norms)
    for values, place in ((losses[-WINDOW:], 0), (norms[-WINDOW:], 1)):
        middle = np.median(values)
        limit = middle + 5 * 1.4826 * np.median(np.abs(values - middle))
        for factor, bad in ((0.9999, False), (1.0001, True)):
            values = [np.float32(np.median(losses)), np.float32(np.median(norms))]
            values[place] = np.float32(limit * factor)
            assert bool(is_bad(past, *values, 5)) is bad


def test_with_a_short_history_only_values_that_are_not_finite_are_bad():
    past = history([1.0] * (MINIMUM - 1), [1.0] * (MINIMUM - 1))
    assert not is_bad(past, 1e6, 1e6, 5)
    for values in ((np.nan, 1.0), (1.0, np.inf), (-np.inf, 1.0)):
        assert is_bad(past, *values, 5)


def test_skipped_updates_are_counted_and_do_not_enter_the_history():
    before = history([1.0] * 20, [1.0] * 20)
    bad = jax.numpy.asarray(True)
    after = record_update(record_update(before, 9.0, 9.0, bad), np.nan, 9.0, bad)
    assert (int(after.skipped), int(after.consecutive_skips), int(after.applied)) == (2, 2, 20)
    np.testing.assert_array_equal(after.losses, before.losses)
    assert int(record_update(after, 1.0, 1.0, ~bad).consecutive_skips) == 0


def test_a_bad_update_changes_only_the_counts():
    config = small_config(0.0)
    config.skip.stop_after = 3
    trainer = Trainer(config, schedule=optax.linear_schedule(1e-3, 0, 100))
    state, _ = trainer.run(trainer.fresh(), range(2))
    params, opt_state = jax.device_get((state.params, state.opt_state))
    # A history of tiny gradient norms: the next one is far above it.
    past = history([1e3] * 20, [1e-9] * 20)
    state, metrics = trainer.run(state.replace(history=jax.device_put(past, state.step.sharding)), range(2, 4))
    jax.tree.map(np.testing.assert_array_equal, (params, opt_state), jax.device_get((state.params, state.opt_state)))
    assert int(state.step) == 4
    assert [values["consecutive_skips"] for values in metrics] == [1, 2]
    assert metrics[1]["learning_rate"] == metrics[0]["learning_rate"] == pytest.approx(1e-3 * 0.98)


def test_skipping_changes_nothing_without_bad_updates():
    config = small_config(0.0)
    plain = Trainer(config)
    state, without = plain.run(plain.fresh(), range(4))
    config.skip.stop_after = 3
    careful = Trainer(config)
    other, with_policy = careful.run(careful.fresh(), range(4))
    np.testing.assert_allclose(losses(with_policy), losses(without), rtol=1e-6)
    assert int(other.history.applied) == 4 and not other.history.skipped
    # Up to rounding, because the program differs.
    jax.tree.map(lambda got, expected: np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-7),
                 jax.device_get(other.params), jax.device_get(state.params))
