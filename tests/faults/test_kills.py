"""One run, killed again and again at random moments, against the same run left alone."""
import random
import signal
import threading

from tests.runs import Process, assert_same_run, run

KILLS = 25


def test_a_run_killed_at_random_moments_ends_as_if_nothing_had_happened(files, tmp_path, sweep):
    kills, moments = 0, random.Random(sweep)
    # So many steps that the kills come before the end; so many saves that some are hit.
    settings = (f"--config.train.duration={16 * max(sweep, KILLS)} steps", "--config.checkpoint.every=3 steps")
    run(files, tmp_path / "unbroken", *settings)
    status = None
    while status != 0:
        with Process(files, tmp_path / "broken", *settings) as process:
            # Most kills come while it steps and saves, one in five while it starts and reads its checkpoint.
            if moments.random() < 0.8:
                process.until("loss")
                seconds = moments.uniform(0, 0.6)
            else:
                seconds = moments.uniform(0, 6)
            timer = threading.Timer(seconds, process.send, [signal.SIGKILL])
            timer.start()
            status = process.wait()
            timer.cancel()
        assert status in (0, -signal.SIGKILL), process.output
        kills += status != 0
    assert kills >= max(sweep, KILLS)
    assert_same_run(tmp_path / "broken", tmp_path / "unbroken")
