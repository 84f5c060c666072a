"""A run killed at random moments equals the same run without interruption."""
import pathlib
import random
import signal
import threading
import time

from spanbert_jax.checkpoints.folder import FOLDER, list_saving
from tests.runs import USUAL, Process, assert_same_run, run_here

KILLS = 3  # one of each kind


def until_it_saves(workdir: pathlib.Path) -> None:
    """Waits until a save has started, at most some seconds."""
    end = time.monotonic() + 10
    while not list_saving(workdir / FOLDER) and time.monotonic() < end:
        pass


def test_a_run_killed_at_random_moments_ends_as_without_interruption(files, tmp_path, sweep):
    moments, kills = random.Random(sweep), max(sweep, KILLS)
    # Long enough for all kills, and with so many saves that some are hit.
    settings = (f"--config.train.duration={9 * kills} steps", "--config.checkpoint.every=3 steps", *USUAL)
    run_here(files, tmp_path / "unbroken", *settings)
    saves_hit = 0
    for number in range(kills):
        with Process(files, tmp_path / "broken", *settings) as process:
            # One kill in three comes as soon as a save has started, because saves can be too short to hit by chance;
            # one while it trains and saves; one while it starts and reads its checkpoint.
            kind = number % 3
            if kind < 2:
                process.until("loss")
            if kind == 0:
                until_it_saves(tmp_path / "broken")
                process.send(signal.SIGKILL)
            else:
                threading.Timer(moments.uniform(0, 0.3 if kind == 1 else 4), process.send, [signal.SIGKILL]).start()
            assert process.wait() == -signal.SIGKILL, process.output
        saves_hit += bool(list((tmp_path / "broken").glob("checkpoints/*.saving*")))
    assert saves_hit
    run_here(files, tmp_path / "broken", *settings)
    assert_same_run(tmp_path / "broken", tmp_path / "unbroken")
