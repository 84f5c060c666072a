"""What is reported of each update."""
import types

import jax.numpy as jnp
import numpy as np
import pytest

from spanbert_jax.common.errors import RunFailed
from spanbert_jax.pretraining.config import as_pretraining_config, default_config
from spanbert_jax.training.updates import UpdateReporter


def reporter(**skip):
    """A reporter of a run of 1,000 steps, and the lines that it logs."""
    config, lines = default_config(), []
    config.skip.update(skip)
    experiment = types.SimpleNamespace(config=as_pretraining_config(config), total_steps=1000,
                                       workload=types.SimpleNamespace(flops=1.0))
    services = types.SimpleNamespace(goodput=types.SimpleNamespace(spent=lambda *names: 1.0),
                                     progress=types.SimpleNamespace(log=lines.append))
    return UpdateReporter(experiment, services), lines


@pytest.mark.parametrize("skips,remedy", [
    (0, "lower config.optimizer.learning_rate .*, or skip such updates with config.skip.stop_after=10"),
    (3, "lower config.optimizer.learning_rate or lengthen config.schedule.warmup")])
def test_a_loss_that_is_not_finite_names_ten_rows_and_the_remedy(skips, remedy):
    updates, _ = reporter(stop_after=skips)
    metrics = {"loss": np.nan, "gradient_norm": np.inf, "tokens": 64, "stop": False}
    skipped = {"skipped_updates": skips, "consecutive_skips": skips} if skips else {}
    updates.submit(7, np.arange(100, 356), {name: jnp.asarray(value) for name, value in (metrics | skipped).items()})
    with pytest.raises(RunFailed, match=f"step 7: .*; {remedy}$") as error:
        updates.flush()
    assert "rows [100, 101, 102, 103, 104, 105, 106, 107, 108, 109] and 246 more;" in str(error.value)
