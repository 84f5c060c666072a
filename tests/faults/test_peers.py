"""When a process dies, the others end soon, so that the run can be restarted.

`tests/cluster/test_joining` also hangs processes, and tests/launch/test_local those of a launcher.
"""
import signal
import time

from spanbert_jax.cluster.exit_codes import retryable
from tests.runs import Process, free_port

SECONDS = 15


def test_without_a_launcher_the_heartbeat_ends_the_peer_of_a_killed_process(files, tmp_path):
    flags = ["--config.train.duration=100000 steps", "--coordinator", f"127.0.0.1:{free_port()}", "--processes", "2",
             "--process"]
    with Process(files, tmp_path, *flags, "0") as first, Process(files, tmp_path, *flags, "1") as second:
        first.until("loss")
        second.send(signal.SIGKILL)
        began = time.monotonic()
        assert retryable(first.wait()), first.output
        assert time.monotonic() - began < SECONDS


def test_processes_started_with_different_settings_are_refused(files, tmp_path):
    flags = ["--coordinator", f"127.0.0.1:{free_port()}", "--processes", "2", "--process"]
    with (Process(files, tmp_path, *flags, "0") as first,
          Process(files, tmp_path, "--config.seed=5", *flags, "1") as second):
        assert (first.wait(), second.wait()) == (2, 2), first.output + second.output
    assert "config.seed: 0 -> 5" in second.output and "different settings" in first.output
