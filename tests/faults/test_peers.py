"""When a process dies or hangs, the others end soon, so that the run can be restarted."""
import signal
import time

import pytest

from spanbert_jax.cluster.exit_codes import retryable
from tests.runs import Process, free_port

# Long enough, with batches that three processes can share.
SETTINGS = ("--config.train.duration=100000 steps", "--config.train.batch_size=6", "--config.evaluation.batch_size=6")
SECONDS = 15


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_without_a_launcher_the_heartbeat_ends_the_peers(files, tmp_path, number):
    coordinator = f"127.0.0.1:{free_port()}"
    flags = [["--coordinator", coordinator, "--processes", "3", "--process", str(index)] for index in range(3)]
    with (Process(files, tmp_path, *SETTINGS, *flags[0]) as first,
          Process(files, tmp_path, *SETTINGS, *flags[1]) as second,
          Process(files, tmp_path, *SETTINGS, *flags[2]) as third):
        first.until("loss")
        third.send(number)
        began = time.monotonic()
        statuses = first.wait(), second.wait()
        assert time.monotonic() - began < SECONDS
    assert all(map(retryable, statuses)), (statuses, first.output, second.output)


def test_processes_started_with_different_settings_are_refused(files, tmp_path):
    flags = ["--coordinator", f"127.0.0.1:{free_port()}", "--processes", "2", "--process"]
    with (Process(files, tmp_path, *flags, "0") as first,
          Process(files, tmp_path, "--config.seed=5", *flags, "1") as second):
        assert (first.wait(), second.wait()) == (2, 2), first.output + second.output
    assert "config.seed: 0 -> 5" in second.output and "different settings" in first.output
