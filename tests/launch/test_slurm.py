"""The batch script, with fakes of Slurm's programs. tests/launch/try_slurm.py runs it on a real cluster."""
import os
import pathlib
import shlex
import signal
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TRAIN = ("train", "--config", "configs/base.py", "--workdir", "runs/base")
PROGRAMS = {
    # Runs the tasks one after another, and ends with the highest of their statuses.
    "srun": """echo "srun ${@:1:3}" >> calls
while [[ $1 != bash ]]; do shift; done
for status in $STATUSES; do
  STATUS=$status "$@"; ended=$?
  if (( ended > ${highest:-0} )); then highest=$ended; fi
done
exit ${highest:-0}""",
    "spanbert-jax": """printf '%s\\0' "$@" > arguments
echo "$JAX_PLATFORMS ${XLA_FLAGS:+flags} ${SRUN_CPUS_PER_TASK:-}" >> environment
exit $STATUS""",
    "scontrol": """echo "scontrol $*" >> calls
if [[ $1 == show ]]; then echo "JobId=7 JobName=x JobState=$STATE Reason=None"; fi"""}


class Job:
    """A folder like the root of the checkout, with stand-ins on its PATH."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "launch").symlink_to(ROOT / "launch")
        (folder / "bin").mkdir()
        for name, script in PROGRAMS.items():
            (folder / "bin" / name).write_text(f"#!/bin/bash\n{script}\n")
            (folder / "bin" / name).chmod(0o755)
        own = {name: value for name, value in os.environ.items() if "CUDA" not in name and name != "XLA_FLAGS"}
        self.environment = {**own, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "SLURM_JOB_ID": "7",
                            "STATE": "RUNNING"}

    def run(self, *arguments, **variables):
        """Exit status, output, and the lines of complaint."""
        done = subprocess.run(["bash", "launch/slurm.sbatch", *arguments], cwd=self.folder, text=True,
                              capture_output=True, env={**self.environment, **variables})
        return done.returncode, done.stdout, done.stderr.splitlines()

    @property
    def requeued(self):
        return "scontrol requeue 7" in self.read("calls").splitlines()

    def read(self, name):
        path = self.folder / name
        return path.read_text() if path.exists() else ""


@pytest.fixture
def job(tmp_path):
    return Job(tmp_path)


@pytest.mark.parametrize("statuses,status,requeued", [
    ("0 0", 0, False), ("75 75", 75, True), ("70 137", 137, True), ("134 70", 134, True), ("143 70", 143, True),
    # Of these srun tells the highest.
    ("1 70", 1, False), ("134 2", 2, False), ("70 74", 74, False), ("75 134", 75, True)])
def test_the_status_of_the_cause_decides_on_a_requeue(job, statuses, status, requeued):
    code, _, errors = job.run(*TRAIN, STATUSES=statuses)
    assert (code, job.requeued) == (status, requeued)
    assert errors == [f"slurm.sbatch: status {status}: requeued, restart 1 of 100" if requeued else
                      f"slurm.sbatch: ended with status {status}"]
    assert not list(job.folder.glob("*.statuses")), "the next attempt notes its own"


def test_a_job_that_slurm_has_ended_is_not_requeued(job):
    for state in ("COMPLETING", "CANCELLED", "PREEMPTED"):
        status, _, errors = job.run(*TRAIN, STATUSES="75", STATE=state)
        assert status == 75 and not job.requeued and f"Slurm has ended the job ({state})" in errors[0]


def test_restarts_have_a_limit(job):
    status, _, errors = job.run("--restarts", "3", *TRAIN, STATUSES="70", SLURM_RESTART_COUNT="3")
    assert status == 70 and not job.requeued and "after 3 requeues; submit the same command" in errors[0]
    assert job.run("--restarts", "3", *TRAIN, STATUSES="70", SLURM_RESTART_COUNT="2")[0] == 70 and job.requeued


def test_tasks_get_the_arguments_unchanged(job):
    typed = [*TRAIN, "--config.a=it's", '--config.b="$HOME" `id`', "two words", "", "*", "line\nbreak"]
    assert job.run(*typed, STATUSES="0")[0] == 0
    assert job.read("arguments").split("\0")[:-1] == typed
    assert job.read("calls").splitlines()[0] == "srun --label --kill-on-bad-exit=0 --wait=60"


def test_a_job_with_gpus_gets_their_flags_and_one_without_stays_on_cpus(job):
    job.run(*TRAIN, STATUSES="0", SLURM_CPUS_PER_TASK="4")
    job.run(*TRAIN, STATUSES="0", SLURM_GPUS_ON_NODE="8", JAX_PLATFORMS="")
    assert job.read("environment").splitlines() == ["cpu  4", " flags "]


def test_sigterm_to_the_script_and_to_the_shell_of_a_task_does_not_cut_a_save_short(job):
    # Slurm sends it to all of them when it preempts.
    (job.folder / "bin" / "spanbert-jax").write_text(f"""#!{sys.executable}
import os, signal, sys

def save(number, frame):
    open("saved", "a").write("saved")
    sys.exit(75)

signal.signal(signal.SIGTERM, save)
for number in (os.environ["SCRIPT"], os.getppid(), os.getpid()):
    os.kill(int(number), signal.SIGTERM)
""")
    script = f"export SCRIPT=$$; exec bash launch/slurm.sbatch {shlex.join(TRAIN)}"
    done = subprocess.run(["bash", "-c", script], cwd=job.folder, capture_output=True, text=True,
                          env={**job.environment, "STATUSES": "0", "STATE": "COMPLETING"})
    assert job.read("saved") == "saved"
    assert done.returncode == 75 and "Slurm has ended the job" in done.stderr


def test_a_dry_run_prints_all_commands_and_runs_none(job):
    status, out, errors = job.run("--dry-run", "--restarts", "5", *TRAIN, "--config.a=it's", SLURM_JOB_ID="")
    assert (status, errors, job.read("calls")) == (0, [], "")
    lines = out.splitlines()
    assert "export JAX_PLATFORMS=cpu" in lines and lines[-1].endswith("up to 5 times: scontrol requeue JOB")
    assert shlex.split(lines[-2])[-6:] == [*TRAIN, "--config.a=it's"]
    _, with_gpus, _ = job.run("--dry-run", *TRAIN, SLURM_GPUS_ON_NODE="8")
    assert "export XLA_FLAGS='--xla_gpu" in with_gpus and "JAX_PLATFORMS" not in with_gpus


@pytest.mark.parametrize("arguments,message", [
    ((), "no command given; write train"), (("--restarts", "many", "train"), "--restarts many: give a whole number"),
    (("--restarts",), "--restarts without a value"), (("--fast", "train"), "unknown flag --fast; allowed")])
def test_wrong_arguments_give_a_one_line_error(job, arguments, message):
    status, out, errors = job.run(*arguments)
    assert status == 2 and not out and len(errors) == 1 and message in errors[0]


def test_a_wrong_environment_gives_a_message_with_a_solution(job, tmp_path):
    assert "not in a job; submit it with sbatch" in job.run(*TRAIN, SLURM_JOB_ID="")[2][0]
    (job.folder / "bin" / "spanbert-jax").unlink()
    path = f"{job.folder / 'bin'}:/usr/bin:/bin"
    assert "spanbert-jax is not on PATH; activate the environment" in job.run(*TRAIN, PATH=path)[2][0]
    (job.folder / "launch").unlink()
    done = subprocess.run(["bash", ROOT / "launch/slurm.sbatch", *TRAIN], cwd=job.folder, capture_output=True,
                          text=True, env=job.environment)
    assert done.returncode == 2 and "is not the root of the checkout; submit the job from there" in done.stderr


def test_the_script_asks_slurm_for_a_warning_and_an_appended_log():
    options = [line.split()[1] for line in (ROOT / "launch/slurm.sbatch").read_text().splitlines()
               if line.startswith("#SBATCH")]
    assert {"--requeue", "--open-mode=append", f"--signal={signal.SIGTERM.name[3:]}@120"} <= set(options)
