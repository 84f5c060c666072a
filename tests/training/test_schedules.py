import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spanbert_jax.common.errors import UserError
from spanbert_jax.training.schedules import learning_rate_schedule


def rates(name, total=100, warmup=10, decay=20, final=0.0):
    schedule = learning_rate_schedule(name, 2.0, total, warmup, decay, final)
    return np.array([float(schedule(count)) for count in range(total)])


def test_warmup_is_linear_from_the_first_update():
    for name in ("linear", "cosine", "constant", "wsd"):
        np.testing.assert_allclose(rates(name)[:10], 2.0 * np.arange(1, 11) / 10, rtol=1e-6)


def test_linear_starts_at_step_zero_as_in_the_reference():
    # The reference: (lr - end) * (1 - n / total) + end for update n after the warm-up.
    expected = [2.0 * (1 - n / 100) for n in range(11, 101)]
    np.testing.assert_allclose(rates("linear")[10:], expected, rtol=1e-5, atol=1e-7)


def test_triangular_starts_at_the_end_of_the_warmup():
    # (1 - x) / (1 - warmup) at x = n / total, from the peak at the end of the warm-up to 0.
    expected = [2.0 * (1 - n / 100) / (1 - 0.1) for n in range(10, 101)]
    np.testing.assert_allclose(rates("triangular")[9:], expected, rtol=1e-5, atol=1e-7)


def test_cosine_and_constant():
    expected = [1.0 * (1 + math.cos(math.pi * n / 100)) for n in range(11, 101)]
    np.testing.assert_allclose(rates("cosine")[10:], expected, rtol=1e-5, atol=1e-6)
    assert (rates("constant")[10:] == 2.0).all()


def test_runs_at_a_constant_rate_share_their_programs_whatever_their_length():
    programs = {jax.jit(learning_rate_schedule("constant", 2.0, total, 10, 0, 0.0)).lower(jnp.int32(0)).as_text()
                for total in (50, 100)}
    assert len(programs) == 1


def test_warmup_stable_decay():
    got = rates("wsd", final=0.1)
    assert (got[10:80] == 2.0).all()
    expected = [2.0 * (1 - 0.9 * math.sqrt((n - 80) / 20)) for n in range(81, 101)]
    np.testing.assert_allclose(got[80:], expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["linear", "triangular", "cosine", "wsd"])
def test_ends_at_the_final_fraction(name):
    assert rates(name, final=0.25)[-1] == pytest.approx(0.5)


def test_warmup_longer_than_the_run_is_refused():
    with pytest.raises(UserError, match="schedule.decay: 90 steps of warm-up and 20 of decay do not fit"):
        learning_rate_schedule("wsd", 1.0, 100, 90, 20, 0.0)
