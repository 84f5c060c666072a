"""One run, killed again and again at random moments, against the same run left alone."""
import random
import signal
import threading

from tests.runs import DROPOUT, Process, assert_same_run, run

KILLS = 25


def test_a_run_killed_at_random_moments_ends_as_if_nothing_had_happened(files, tmp_path, sweep):
    moments, kills = random.Random(sweep), max(sweep, KILLS)
    # Longer than all that is done between the kills; so many saves that some are hit.
    settings = (f"--config.train.duration={12 * kills} steps", "--config.checkpoint.every=3 steps", *DROPOUT)
    run(files, tmp_path / "unbroken", *settings)
    saves_hit = 0
    for _ in range(kills):
        with Process(files, tmp_path / "broken", *settings) as process:
            # Most kills come while it steps and saves, one in five while it starts and reads its checkpoint.
            if moments.random() < 0.8:
                process.until("loss")
                seconds = moments.uniform(0, 0.3)
            else:
                seconds = moments.uniform(0, 4)
            timer = threading.Timer(seconds, process.send, [signal.SIGKILL])
            timer.start()
            assert process.wait() == -signal.SIGKILL, process.output
        saves_hit += bool(list((tmp_path / "broken").glob("checkpoints/*.saving*")))
    assert saves_hit
    run(files, tmp_path / "broken", *settings)
    assert_same_run(tmp_path / "broken", tmp_path / "unbroken")
