"""The script on the workers of a TPU slice: restarts, exit statuses and reports."""
import os
import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Worker:
    """A checkout as it lies on a worker, with a program in the place of spanbert-jax."""

    def __init__(self, folder, program, host="t1v-n-1234abcd-w-0"):
        """Args: program: shell that is given the command and its arguments; `attempt` is how often it was started."""
        self.checkout = folder / "spanbert-jax"
        shutil.copytree(ROOT / "launch", self.checkout / "launch")
        self.logs = folder.parent / "logs"
        home = folder / "spanbert-jax-home"
        (home / "venv" / "bin").mkdir(parents=True)
        (folder / "bin").mkdir()
        count = f'echo >> {folder}/attempts; attempt=$(wc -l < {folder}/attempts); logs={self.logs}\n'
        for path, script in ((home / "venv/bin/spanbert-jax", count + program), (folder / "bin/sleep", "exit 0"),
                             (folder / "bin/hostname", f"echo {host}")):
            path.write_text(f"#!/bin/bash\n{script}\n")
            path.chmod(0o755)
        self.environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
        self.logs.mkdir(exist_ok=True)

    def run(self, *arguments):
        done = subprocess.run(["bash", self.checkout / "launch/tpu_worker.sh", *arguments], env=self.environment,
                              capture_output=True, text=True)
        return done.returncode, done.stdout

    def supervise(self, restarts="5", slice="0"):
        return self.run("supervise", self.logs, slice, restarts, "train", "--config=a b")[0]

    def log(self, name="slice0-worker0"):
        return (self.logs / f"{name}.log").read_text()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "worker").mkdir()
    return tmp_path / "worker"


@pytest.mark.parametrize("status", [70, 75, 134, 137, 143])
def test_a_run_is_restarted_while_its_status_permits_it(folder, status):
    worker = Worker(folder, f'echo "$# $1 $2"; (( attempt < 3 )) && exit {status}; exit 0')
    assert worker.supervise() == 0
    assert worker.log().count("2 train --config=a b\n") == 3
    assert f"tpu_worker.sh: status {status}: restart 2 of 5\n" in worker.log()
    assert worker.run("report", worker.logs, "0")[1].startswith("ended 0\n2 train")


@pytest.mark.parametrize("status", [1, 2, 74])
def test_a_status_that_is_not_retryable_ends_the_run_on_every_worker(folder, tmp_path, status):
    assert Worker(folder, f"exit {status}", host="t1v-n-1-w-3").supervise(slice="1") == status
    (tmp_path / "other").mkdir()
    other = Worker(tmp_path / "other", "exit 70")
    assert other.supervise() == status and "restart" not in other.log()
    assert other.log("slice1-worker3") and other.run("report", other.logs, "0")[1].startswith(f"ended {status}\n")


def test_restarts_have_a_limit(folder):
    worker = Worker(folder, "exit 137")
    assert worker.supervise(restarts="2") == 137
    assert len((folder / "attempts").read_text().splitlines()) == 3
    assert worker.run("report", worker.logs, "0")[1].startswith("ended 137\n")


def test_no_restart_when_the_machine_stops(folder):
    worker = Worker(folder, "kill -TERM $PPID; exit 75")
    assert worker.supervise() == 75
    assert "status 75; stopped with the machine" in worker.log() and "restart" not in worker.log()
    assert worker.run("report", worker.logs, "0")[1].startswith("absent\n"), "another worker is to go on"


def test_a_run_in_the_background_is_started_once_and_reported(folder):
    # Goes on as long as nothing is written into the pipe.
    worker = Worker(folder, 'echo begun; read -r < "$logs/pipe"; exit 0')
    os.mkfifo(worker.logs / "pipe")
    assert worker.run("report", worker.logs, "0") == (0, "absent\n")
    assert worker.run("start", worker.logs, "0", "5", "train")[0] == 0
    with open(worker.logs / "pipe", "w") as pipe:  # returns when the run has come so far
        assert worker.run("start", worker.logs, "0", "5", "train")[0] == 0
        assert worker.run("report", worker.logs, "0") == (0, "running\nbegun\n")
        assert worker.run("report", worker.logs, "6") == (0, "running\n")
        assert (folder / "attempts").read_text() == "\n"
        pipe.write("go\n")
    reports = (worker.run("report", worker.logs, "6")[1].splitlines()[0] for _ in range(1000))
    assert "ended 0" in reports
    assert worker.run("forget", worker.logs) == (0, "")
    assert not worker.run("report", worker.logs, "6")[1].startswith("ended")
