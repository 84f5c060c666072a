"""Profiler traces: which updates they hold, and that they change nothing else."""
import gzip
import json
import signal
import socket

import pytest

from spanbert_jax.cluster.exit_codes import STOPPED
from spanbert_jax.common.errors import UserError
from spanbert_jax.pretraining.config import as_pretraining_config, default_config
from spanbert_jax.training.profiling import parse_steps
from tests.disks import small_disk
from tests.runs import Process, assert_same_run, final_state, losses, run_here

SHORT = ("--config.train.duration=9 steps", "--config.evaluation.every=4 steps", "--config.checkpoint.every=3 steps")


@pytest.fixture(scope="module")
def unbroken(files, tmp_path_factory):
    """The workdir of a run without traces."""
    workdir = tmp_path_factory.mktemp("unbroken")
    run_here(files, workdir, *SHORT)
    return workdir


def traces(workdir) -> dict[str, list[str]]:
    """The files of each trace, by the steps in its name."""
    folder = workdir / "tensorboard" / "plugins" / "profile"
    host = f"{socket.gethostname()}_"
    return {path.name.split("_", 1)[1]: sorted(file.name.removeprefix(host) for file in path.iterdir())
            for path in folder.iterdir()}


def traced_steps(workdir, name: str, process: int = 0) -> list[int]:
    """The steps in a Perfetto trace."""
    file, = workdir.glob(f"tensorboard/plugins/profile/*_{name}/*_{process}.perfetto_trace.json.gz")
    events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    assert len(events) > 1000  # the programs, not only the loop
    return [int(event["args"]["step_num"]) for event in events if "step_num" in event.get("args", {})]


def files_of(*processes: int) -> list[str]:
    return sorted(f"{process}.{name}" for process in processes for name in ("perfetto_trace.json.gz", "xplane.pb"))


@pytest.mark.parametrize("text, steps", [
    ("", ()), ("7", (range(7, 8),)), ("100-104,2000-2002", (range(100, 105), range(2000, 2003))),
    ("20,3-5", (range(3, 6), range(20, 21))), ("1-3,2-6,7,9", (range(1, 8), range(9, 10))),
    ("1-100", (range(1, 101),))])
def test_steps_are_parsed(text, steps):
    assert parse_steps(text) == steps


@pytest.mark.parametrize("text", ["0", "0-3", "5-3", "a", "1-", "-3", "1-2-3", "1,", ",", " ", "1.5", "1-101",
                                  "1-60,61-120", "1-99999999999999999999"])
def test_invalid_steps_are_refused(text):
    config = default_config()
    config.data.path, config.profile = "corpus", text
    with pytest.raises(UserError) as caught:
        as_pretraining_config(config).validate("config")
    assert f"config.profile={text!r}: " in str(caught.value) and "\n" not in str(caught.value)


def test_selected_steps_are_traced_and_nothing_else_changes(files, unbroken, tmp_path):
    # The first trace includes an evaluation and a save, the second ends with the run, the third is not reached.
    output = run_here(files, tmp_path, *SHORT, "--config.profile=3-5,9,100")
    assert traces(tmp_path) == {"steps_3-5": files_of(0), "step_9": files_of(0)}
    assert traced_steps(tmp_path, "steps_3-5") == [3, 4, 5] and traced_steps(tmp_path, "step_9") == [9]
    assert output.count("Trace of step") == 2 and f"tensorboard --logdir {tmp_path}`" in output
    assert_same_run(tmp_path, unbroken)
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["kind"] == "goodput" and last["step"] == 9 and last["profile_seconds"] > 0
    assert last["total_seconds"] == pytest.approx(
        sum(value for name, value in last.items() if name.endswith("_seconds") and name != "total_seconds"))
    assert not list(tmp_path.rglob(".profile*"))


def test_every_process_writes_its_own_trace(unbroken_pair):
    assert "[Gloo]" not in (unbroken_pair / "output.txt").read_text()
    assert traces(unbroken_pair) == {"steps_2-3": files_of(0, 1)}
    for process in (0, 1):
        assert traced_steps(unbroken_pair, "steps_2-3", process) == [2, 3]


def test_a_stop_ends_a_trace_and_the_resumed_run_may_trace_other_steps(files, tmp_path):
    duration = "--config.train.duration=20 steps"
    with Process(files, tmp_path, duration, "--config.profile=2-20") as process:
        process.until("step 4/")
        process.send(signal.SIGTERM)
        assert process.wait() == STOPPED, process.output
    stopped = max(losses(tmp_path))
    assert traced_steps(tmp_path, f"steps_2-{stopped}") == list(range(2, stopped + 1))
    assert "Goodput" in process.output
    output = run_here(files, tmp_path, duration, f"--config.profile={stopped}")
    assert "all of these steps are done or beyond the end" in output and len(traces(tmp_path)) == 1
    assert "Changed since then: config.profile: '2-20' -> " in output and "(1 restart)" in output


def test_a_full_disk_ends_the_trace_but_not_the_training(files, unbroken, tmp_path):
    with small_disk(tmp_path / "tensorboard", "64k") as disk:
        output = run_here(files, tmp_path, *SHORT, "--config.profile=2-3,6", "--config.trackers=()")
        assert not list(disk.rglob("*"))
    assert output.count("TRACE FAILED") == 1 and "No space left" in output
    assert losses(tmp_path) == losses(unbroken)
    assert final_state(tmp_path).keys() == final_state(unbroken).keys()
