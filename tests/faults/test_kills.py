"""One run, killed again and again at random moments, against the same run left alone."""
import pathlib
import random
import signal
import threading
import time

from spanbert_jax.checkpoints.folder import FOLDER, list_saving
from tests.runs import USUAL, Process, assert_same_run, run

KILLS = 6


def until_it_saves(workdir: pathlib.Path) -> None:
    """Returns as soon as a save has begun, or after some seconds without one."""
    end = time.monotonic() + 10
    while not list_saving(workdir / FOLDER) and time.monotonic() < end:
        pass


def test_a_run_killed_at_random_moments_ends_as_if_nothing_had_happened(files, tmp_path, sweep):
    moments, kills = random.Random(sweep), max(sweep, KILLS)
    # Longer than all that is done between the kills; so many saves that some are hit.
    settings = (f"--config.train.duration={12 * kills} steps", "--config.checkpoint.every=3 steps", *USUAL)
    run(files, tmp_path / "unbroken", *settings)
    saves_hit = 0
    for number in range(kills):
        with Process(files, tmp_path / "broken", *settings) as process:
            # One kill in three comes as soon as a save has begun, since saves can be too short to be hit by chance; one
            # while it steps and saves; one while it starts and reads its checkpoint.
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
    run(files, tmp_path / "broken", *settings)
    assert_same_run(tmp_path / "broken", tmp_path / "unbroken")
