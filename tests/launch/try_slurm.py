"""Runs launch/slurm.sbatch on a real Slurm cluster of one node, which this script starts. Run it by hand, as root:

  apt-get install slurm-wlm munge
  python -m tests.launch.try_slurm

A run of two tasks gets SIGTERM, is preempted by a job of higher priority, loses a task to SIGKILL, and continues to its
end each time. One is warned of its time limit, and continues. One with a wrong argument is not requeued; a cancelled
one stays cancelled. Takes about six minutes.
"""
from __future__ import annotations

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from tests.runs import ROOT, Files, losses, make_files

CLUSTER = pathlib.Path(__file__).with_name("slurm_cluster.sh")
STEPS = 60
_DEADLINE_SECONDS = 600


def main() -> None:
    """Runs all cases, and prints the results."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        programs = folder / "bin"
        programs.mkdir()
        (programs / "spanbert-jax").write_text(f'#!/bin/sh\nexec {sys.executable} -m spanbert_jax "$@"\n')
        (programs / "spanbert-jax").chmod(0o755)
        os.environ.update(SLURM_CONF=str(folder / "slurm/slurm.conf"), JAX_NUM_CPU_DEVICES="1",
                          PATH=f"{programs}:{os.environ['PATH']}", XDG_CACHE_HOME=str(folder / "cache"))
        (folder / "files").mkdir()
        files = make_files(folder / "files")
        subprocess.run([CLUSTER, "start", folder / "slurm"], check=True)
        try:
            _try_going_on(files, folder / "run")
            _try_a_time_limit(files, folder / "limited")
            _try_a_wrong_argument(files, folder / "mistake")
            _try_cancelling(files, folder / "cancelled")
        finally:
            subprocess.run(["scancel", "--user=root"])
            subprocess.run([CLUSTER, "stop", folder / "slurm"])


def _try_going_on(files: Files, workdir: pathlib.Path) -> None:
    job = Job(files, workdir)
    job.wait_for(rf"step 1\d/{STEPS} ")
    subprocess.run(["scancel", "--signal=TERM", job.number], check=True)
    job.wait_for("status 75: requeued, restart 1 of 100")
    job.wait_for(rf"step 2\d/{STEPS} ")
    subprocess.run(["sbatch", "--partition=urgent", "--ntasks=2", "--output=/dev/null", "--wrap=true"], check=True)
    job.wait_for("status 75; Slurm has ended the job")
    job.wait_for(rf"step 3\d/{STEPS} ")
    os.kill(job.task(1), signal.SIGKILL)
    job.wait_for(r"status (70|134|137): requeued, restart 3 of 100")
    job.wait_for(f"Made: .* {STEPS} steps")
    state = job.wait_for_end()
    assert state["JobState"] == "COMPLETED" and state["Restarts"] == "3", state
    stops = [int(step) for step in re.findall(r"Stopped after step (\d+)", job.output)]
    assert len(stops) == 2 and sorted(losses(workdir)) == list(range(1, STEPS + 1)), stops
    assert not list(ROOT.glob("*.statuses"))
    print(f"job {job.number}: stopped by SIGTERM after step {stops[0]}, preempted after step {stops[1]}, a task "
          f"killed later, continued each time, {STEPS} steps done, {state['JobState']}")


def _try_a_time_limit(files: Files, workdir: pathlib.Path) -> None:
    # Slurm looks at limits every half minute, and warns up to a minute early.
    job = Job(files, workdir, "--config.train.duration=100k steps", flags=("--time=2", "--signal=TERM@60"))
    job.wait_for("status 75: requeued, restart 1 of 100")
    stopped = int(re.search(r"Stopped after step ([\d,]+)", job.output)[1].replace(",", ""))
    job.wait_for(f"Resuming from the checkpoint of step ({stopped}|{stopped:,}) ")
    subprocess.run(["scancel", job.number], check=True)
    job.wait_for_end()
    print(f"job {job.number}: warned of its time limit, it saved step {stopped}, was requeued and went on from there")


def _try_a_wrong_argument(files: Files, workdir: pathlib.Path) -> None:
    job = Job(files, workdir, "--config.train.batch_size=0")
    state = job.wait_for_end()
    assert state["JobState"] == "FAILED" and state["ExitCode"] == "2:0" and state["Restarts"] == "0", state
    print(f"job {job.number}: a wrong argument ended it with status 2, and it was not requeued")


def _try_cancelling(files: Files, workdir: pathlib.Path) -> None:
    job = Job(files, workdir)
    job.wait_for(rf"step 1\d/{STEPS} ")
    subprocess.run(["scancel", job.number], check=True)
    state = job.wait_for_end()
    assert state["JobState"] == "CANCELLED" and "Stopped after step" in job.output, state
    print(f"job {job.number}: cancelled, it saved and was not requeued")


class Job:
    """A run of two tasks, submitted."""

    def __init__(self, files: Files, workdir: pathlib.Path, *overrides: str, flags: tuple[str, ...] = ()):
        """Submits it, with further flags of sbatch."""
        self.log = workdir.with_suffix(".log")
        submitted = subprocess.run(
            ["sbatch", "--parsable", "--ntasks=2", f"--output={self.log}", *flags, "launch/slurm.sbatch", "train",
             f"--config={files.folder / 'config.py'}", f"--config.data.path={files.corpus}",
             f"--config.train.duration={STEPS} steps", f"--workdir={workdir}", *overrides],
            cwd=ROOT, check=True, capture_output=True, text=True)
        self.number = submitted.stdout.strip()

    @property
    def output(self) -> str:
        """What its tasks and its script have written."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def task(self, index: int) -> int:
        """The process that trains in a task."""
        wanted = {f"SLURM_JOB_ID={self.number}", f"SLURM_PROCID={index}"}
        for folder in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (b"spanbert_jax\0train" in (folder / "cmdline").read_bytes()
                        and wanted <= set((folder / "environ").read_text().split("\0"))):
                    return int(folder.name)
        raise AssertionError(f"job {self.number}: task {index} is not running")

    def wait_for(self, pattern: str) -> None:
        """Waits until the log holds it."""
        for _ in self._polls(pattern):
            if re.search(pattern, self.output):
                return

    def wait_for_end(self) -> dict[str, str]:
        """Waits until Slurm has done with the job. Returns what it knows of it."""
        for _ in self._polls("the end"):
            shown = subprocess.run(["scontrol", "show", "job", "--oneliner", self.number], check=True,
                                   capture_output=True, text=True).stdout
            state = dict(word.split("=", 1) for word in shown.split() if "=" in word)
            if state["JobState"] not in ("PENDING", "RUNNING", "COMPLETING", "REQUEUED"):
                return state
        raise AssertionError

    def _polls(self, what: str) -> Iterator[None]:
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while time.monotonic() < deadline:
            yield
            time.sleep(0.2)
        raise AssertionError(f"job {self.number}: waited in vain for {what}; its log:\n{self.output}")


if __name__ == "__main__":
    main()
