"""What is reported of each update."""
import io
import types

import jax.numpy as jnp
import numpy as np
import pytest
import rich.console

from spanbert_jax.common.errors import RunFailed
from spanbert_jax.pretraining.config import as_pretraining_config, default_config
from spanbert_jax.training import display
from spanbert_jax.training.batch_warmup import FULL_BATCH
from spanbert_jax.training.updates import UpdateReporter


class Written:
    """Records the metrics that a reporter writes and shows."""

    def __init__(self):
        self.written, self.shown, self.failures = [], [], 0

    def write(self, step, kind, metrics):
        self.written.append((step, dict(metrics)))

    def show(self, step, metrics, log):
        self.shown.append((step, metrics["loss"], log))

    def log(self, line):
        """Skipped updates are logged."""


def reporter(log_every=100, **skip):
    """A reporter of a run of 1,000 steps, and what it writes."""
    config, written = default_config(), Written()
    config.train.log_every = log_every
    config.skip.update(skip)
    experiment = types.SimpleNamespace(config=as_pretraining_config(config), total_steps=1000, batch_warmup=FULL_BATCH,
                                       workload=types.SimpleNamespace(flops=1.0, describe_row="line {}".format))
    services = types.SimpleNamespace(goodput=types.SimpleNamespace(spent=lambda *names: 1.0), progress=written,
                                     metrics=written, checkpointer=written)
    return UpdateReporter(experiment, services), written


def report(updates, step, rows=(1, 2), row_losses=(0.0, 0.0), **metrics):
    """Submits and reports an update."""
    values = {"loss": 0.0, "gradient_norm": 1.0, "tokens": 64, "stop": False} | metrics
    metrics = {name: jnp.asarray(value) for name, value in values.items()}
    updates.submit(step, np.array(rows), metrics, jnp.asarray(row_losses))
    updates.flush()


def test_a_line_holds_the_means_since_the_last_one():
    updates, written = reporter(log_every=4)
    for step in range(1, 10):
        report(updates, step, loss=step ** 2, masked_accuracy=step / 10, learning_rate=step)
    assert [step for step, _ in written.written] == [4, 8]
    first, second = (metrics for _, metrics in written.written)
    assert first["loss"] == (1 + 4 + 9 + 16) / 4 and second["loss"] == (25 + 36 + 49 + 64) / 4
    assert second["masked_accuracy"] == pytest.approx((0.5 + 0.6 + 0.7 + 0.8) / 4)
    assert second["learning_rate"] == 8  # of the step
    assert written.shown[4:] == [(5, 25, False), (6, 30.5, False), (7, pytest.approx(110 / 3), False), (8, 43.5, True),
                                 (9, 81, False)]


def test_the_mean_leaves_out_skipped_updates():
    updates, written = reporter(log_every=3, stop_after=5)
    for step, loss in ((1, 2.0), (2, np.nan), (3, 4.0), (4, np.nan), (5, np.nan), (6, np.nan)):
        report(updates, step, loss=loss, consecutive_skips=int(np.isnan(loss)), skipped_updates=1)
    assert [metrics["loss"] for _, metrics in written.written] == [3.0, None]


@pytest.mark.parametrize("skips,remedy", [
    (0, "lower config.optimizer.learning_rate .*, or skip such updates with config.skip.stop_after=10"),
    (3, "lower config.optimizer.learning_rate or lengthen config.schedule.warmup")])
def test_a_loss_that_is_not_finite_names_the_ten_worst_rows_and_the_remedy(skips, remedy):
    updates, _ = reporter(stop_after=skips)
    skipped = {"skipped_updates": skips, "consecutive_skips": skips} if skips else {}
    with pytest.raises(RunFailed, match=f"step 7: .*; {remedy}$") as error:
        losses = np.array([*range(12), np.nan, -np.inf, 8.5, 0.0, 0.0, 0.0])
        rows = np.array([*range(100, 115), 111, -1, -1])  # a row twice, and padding
        report(updates, 7, rows, losses, loss=np.nan, gradient_norm=np.inf, **skipped)
    assert ("; rows with the highest loss, of 15: 112 (nan), 113 (-inf), 111 (11), 110 (10), 109 (9), 114 (8.5), "
            "108 (8), 107 (7), 106 (6), 105 (5), the first of which holds line 112; the ") in str(error.value)


def test_a_line_is_shown_at_least_every_half_minute(monkeypatch):
    now, text = [0.0], io.StringIO()
    monkeypatch.setattr(display, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    for terminal in (False, True):
        text.truncate(text.seek(0))
        console = rich.console.Console(file=text, force_terminal=terminal, color_system=None, width=150)
        progress = display.TrainingProgress(console, 1000, 0)
        for step, passed in enumerate((1, 20, 8, 1, 5), 1):  # 30 seconds are over at step 4
            now[0] += passed
            progress.show(step, {"loss": step, "learning_rate": 1e-3, "seconds_per_step": 1, "tokens_per_second": 1,
                                 "model_flops_per_second": 1}, log=step == 5)
        assert [line.split("/")[0] for line in text.getvalue().splitlines()] == ["step 4", "step 5"]
