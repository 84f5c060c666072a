"""The launcher for Cloud TPUs with a fake gcloud: the calls it makes, and its reactions to answers."""
import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
STAND_IN = pathlib.Path(__file__).with_name("gcloud_stand_in.py")
ZONE = ("--name", "sb", "--zone", "us-west4-a")
SLICE = (*ZONE, "--type", "v5litepod-16", "--share", "10.0.0.2:/vol1", "--poll", "0")
TRAIN = ("--", "train", "--config", "configs/base.py", "--workdir", "/mnt/spanbert/runs/base")
WORKER = "sudo bash spanbert-jax/launch/tpu_worker.sh"
AUTH = """ERROR: (gcloud.compute.tpus.queued-resources.describe) You do not currently have an active account selected.
Please run:

  $ gcloud auth login

to obtain new credentials."""


class Play:
    """A folder with a stand-in for gcloud on its PATH.

    Attributes:
      started: processes of the script.
      calls: what it has been called with so far.
    """

    def __init__(self, folder):
        self.folder, self.started = folder, []
        (folder / "bin").mkdir()
        gcloud = folder / "bin" / "gcloud"
        gcloud.write_text(f'#!/bin/sh\nexec {sys.executable} -SE {STAND_IN} {folder} "$@"\n')
        gcloud.chmod(0o755)

    def answers(self, **kinds):
        for kind, answers in kinds.items():
            (self.folder / f"{kind}.json").write_text(json.dumps(answers))

    def start(self, *arguments):
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        # A shell cannot trap a signal that was ignored when it started, as in jobs that run in the background.
        process = subprocess.Popen([ROOT / "launch" / "tpu_vm.sh", *arguments], cwd=self.folder, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PATH": path},
                                   preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        self.started.append(process)
        return process

    def run(self, *arguments):
        """Exit status, what was printed, and the lines of complaint."""
        process = self.start(*arguments)
        out, errors = process.communicate(timeout=60)
        return process.returncode, out, errors.splitlines()

    @property
    def calls(self):
        calls = self.folder / "calls"
        return [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []

    @property
    def kinds(self):
        """What was asked of gcloud, looking at how things stand left out."""
        kinds = ["report" if " report " in call[-1] else call[3] for call in self.calls]
        return [kind for kind in kinds if kind not in ("describe", "report")]


@pytest.fixture
def play(tmp_path):
    play = Play(tmp_path)
    yield play
    for process in play.started:  # one that a test has given up on would go on asking for ever
        process.kill()


SET_OUT = ["scp", "ssh", "ssh", "ssh"]  # the checkout, its installation, forgetting, the start
END = ["scp", "ssh", "delete"]  # the logs, forgetting, the teardown


def test_a_run_from_request_to_deletion(play):
    play.answers(describe=[{"error": "NOT_FOUND: no such thing", "status": 1}, "WAITING_FOR_RESOURCES\n",
                           "PROVISIONING\n", "ACTIVE\n"],
                 report=[{"error": "ssh: connection refused", "status": 255}, "absent\n", "running\nstep 1\n",
                         "running\nstep 2\n", "ended 0\nMade: a SpanBERT\n"])
    status, out, errors = play.run("run", *SLICE, *TRAIN)
    assert status == 0
    assert play.kinds == ["create", *SET_OUT, *END]
    assert out == "step 1\nstep 2\nMade: a SpanBERT\n"
    assert (play.folder / "logs/sb/slice0-worker0.log").read_text() == out, "brought back as it grows"
    reports = [call[-1].partition(" report ")[2].split() for call in play.calls]
    offsets = [words[1].rstrip(";") for words in reports if words]
    assert offsets == ["0", "0", "0", "7", "14"], "only what is new is asked for"
    zone = "--zone=us-west4-a"
    create, = [call for call in play.calls if call[3] == "create"]
    assert create == ["compute", "tpus", "queued-resources", "create", "sb", zone, "--accelerator-type=v5litepod-16",
                      "--runtime-version=v2-alpha-tpuv5-lite", "--node-id=sb", "--spot", "--async", "--quiet"]
    to_all, broadcast_from_zero = [call for call in play.calls if call[3] == "scp"]
    assert to_all[4:] == ["logs/sb/spanbert-jax.tar.gz", "sb:", zone, "--worker=all", "--quiet"]
    assert broadcast_from_zero[4:] == ["sb:/mnt/spanbert/logs/sb/*", "logs/sb/", zone, "--worker=0", "--quiet"]
    install, forget, start, _ = [call[4:] for call in play.calls if call[3] == "ssh" and " report " not in call[-1]]
    assert install[:4] == ["sb", zone, "--worker=all", "--quiet"] and install[-1].endswith("prepare 10.0.0.2:/vol1")
    assert forget[2:] == ["--worker=0", "--quiet", f"--command={WORKER} forget /mnt/spanbert/logs/sb"]
    assert start[2:] == ["--worker=all", "--quiet", f"--command={WORKER} start /mnt/spanbert/logs/sb 0 100 "
                         + shlex.join(TRAIN[1:])]
    assert play.calls[-1] == ["compute", "tpus", "queued-resources", "delete", "sb", zone, "--force", "--quiet"]
    assert [line for line in errors if "status 0" in line] == [
        "tpu_vm.sh: the run ended with status 0; its logs are in logs/sb"]
    # What is sent is the last commit, so the program can be installed from it.
    listed = subprocess.run(["tar", "-tzf", play.folder / "logs/sb/spanbert-jax.tar.gz"], capture_output=True,
                            text=True)
    assert {"setup.py", "launch/", "spanbert_jax/"} <= set(listed.stdout.splitlines())


def test_arguments_arrive_on_the_worker_unchanged(play, tmp_path):
    typed = [*TRAIN[1:], "--config.data.path=/mnt/spanbert/my corpus", "--config.a=it's", '--config.b="$HOME"',
             "--config.c=`id` $(id) \\ *", "--config.d=two\nlines", "--config.e=", "", "~", "!!", "é&;|<>#"]
    play.answers(describe=["ACTIVE\n"], report=["absent\n", "ended 0\n"])
    assert play.run("run", *SLICE, "--", *typed)[0] == 0
    command, = [call[-1].removeprefix("--command=") for call in play.calls if " start " in call[-1]]
    home = tmp_path / "worker"
    script = home / "spanbert-jax" / "launch" / "tpu_worker.sh"
    script.parent.mkdir(parents=True)
    script.write_text(f'exec {sys.executable} -c "import json, sys; print(json.dumps(sys.argv[1:]))" "$@"\n')
    (home / "sudo").write_text('#!/bin/sh\nexec "$@"\n')
    (home / "sudo").chmod(0o755)
    arrived = subprocess.run(["bash", "-c", command], cwd=home, capture_output=True, text=True,
                             env={**os.environ, "PATH": f"{home}:{os.environ['PATH']}"})
    assert json.loads(arrived.stdout) == ["start", "/mnt/spanbert/logs/sb", "0", "100", *typed]


def test_a_dry_run_prints_all_calls_and_makes_none(play):
    arguments = ("run", *SLICE, "--slices", "2", "--project", "mine", *TRAIN, "--config.data.path=my corpus")
    status, out, errors = play.run(arguments[0], "--dry-run", *arguments[1:])
    assert (status, errors, play.calls) == (0, [], []) and not (play.folder / "logs").exists()
    printed = [shlex.split(line)[1:] for line in out.splitlines() if line.startswith("gcloud")]
    play.answers(describe=[{"error": "NOT_FOUND", "status": 1}, "ACTIVE\n", "SUSPENDED\n", "ACTIVE\n"],
                 report=["absent\n", "ended 0\n"])
    assert play.run(*arguments)[0] == 0
    assert {tuple(call) for call in printed} == {tuple(call) for call in play.calls}


def test_several_slices_are_one_request_and_each_is_set_up(play):
    play.answers(describe=[{"error": "NOT_FOUND", "status": 1}, "ACTIVE\n"], report=["absent\n", "ended 0\n"])
    assert play.run("run", *SLICE, "--slices=3", "--on-demand", "--network=mine", *TRAIN)[0] == 0
    create, = [call for call in play.calls if call[3] == "create"]
    assert create[6:] == ["--accelerator-type=v5litepod-16", "--runtime-version=v2-alpha-tpuv5-lite", "--node-count=3",
                          "--node-prefix=sb", "--network=mine", "--async", "--quiet"]
    starts = {call[4]: call[-1].split(" start ")[1].split()[1] for call in play.calls if " start " in call[-1]}
    assert starts == {"sb-0": "0", "sb-1": "1", "sb-2": "2"}
    order = [call[-1].split("tpu_worker.sh ")[1].split()[0] for call in play.calls
             if "tpu_worker.sh" in call[-1] and " report " not in call[-1]]
    assert order == ["prepare"] * 3 + ["forget"] + ["start"] * 3 + ["forget"]


@pytest.mark.parametrize("taken", ["SUSPENDED\n", "FAILED\n"])
def test_after_a_preemption_new_slices_are_requested_and_the_run_continues(play, taken):
    play.answers(describe=["ACTIVE\n", "ACTIVE\n", "SUSPENDING\n", taken, {"error": "NOT_FOUND", "status": 1},
                           "PROVISIONING\n", "ACTIVE\n"],
                 report=["absent\n", "running\nstep 1\n", "absent\n", "running\n", "ended 0\nstep 2\n"])
    status, out, errors = play.run("run", *SLICE, *TRAIN)
    assert (status, out) == (0, "step 1\nstep 2\n")
    assert play.kinds == [*SET_OUT, "delete", "create", *SET_OUT, *END]
    assert sum("the slices were preempted" in line for line in errors) == 1


def test_a_worker_without_a_run_is_set_up_again(play):
    play.answers(describe=["ACTIVE\n"], report=["running\n", "absent\n", "ended 75\n"])
    status, _, _ = play.run("run", *SLICE, *TRAIN)
    assert status == 75 and play.kinds == [*SET_OUT, *END]


def test_failed_calls_are_retried(play):
    refused = {"error": "ERROR: ssh: connection refused", "status": 255}
    play.answers(describe=["ACTIVE\n"], scp=[refused, ""], report=["absent\n", "absent\n", "ended 0\n"])
    status, _, errors = play.run("run", *SLICE, *TRAIN)
    assert status == 0 and play.kinds == ["scp", *SET_OUT, *END]
    assert "tpu_vm.sh: not all workers could be set up, retrying: ERROR: ssh: connection refused" in errors


def test_kept_slices_are_reported_and_not_deleted(play):
    play.answers(describe=["ACTIVE\n"], report=["ended 1\n"])
    status, _, errors = play.run("run", *SLICE, "--keep", *TRAIN)
    assert status == 1 and play.kinds == ["scp", "ssh"]
    assert any("cost money until" in line and line.endswith("down --name sb --zone=us-west4-a") for line in errors)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_does_not_stop_the_run_and_prints_how_to_end_it(play, number):
    play.answers(describe=["ACTIVE\n"], report=["running\nstep 1\n", "running\n"])
    process = play.start("run", *SLICE, *TRAIN)
    assert process.stdout.readline() == "step 1\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "delete" not in play.kinds
    assert "this ends it: " in errors.splitlines()[-1] and errors.splitlines()[-1].endswith("--zone=us-west4-a")


def test_the_other_verbs(play):
    play.answers(describe=["ACTIVE\n"])
    assert play.run("status", *ZONE) == (0, "ACTIVE\n", [])
    assert play.run("logs", *ZONE)[0] == 0
    assert play.run("down", *ZONE, "--project=mine")[0] == 0
    assert [call[3:] for call in play.calls] == [
        ["describe", "sb", "--zone=us-west4-a", "--format=value(state.state)"],
        ["scp", "sb:/mnt/spanbert/logs/sb/*", "logs/sb/", "--zone=us-west4-a", "--worker=0", "--quiet"],
        ["delete", "sb", "--zone=us-west4-a", "--project=mine", "--force", "--quiet"]]


def test_without_gcloud_one_line_gives_the_solution(tmp_path):
    bash = shutil.which("bash")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("dirname", "sed"):
        (programs / name).symlink_to(shutil.which(name))
    done = subprocess.run([bash, ROOT / "launch/tpu_vm.sh", "run", *SLICE, *TRAIN], cwd=tmp_path, text=True,
                          capture_output=True, env={"PATH": str(programs)})
    assert done.returncode == 2 and not done.stdout
    line, = done.stderr.splitlines()
    assert line.startswith("tpu_vm.sh: gcloud is not on PATH; install it")


def error(text):
    return {"error": f"ERROR: (gcloud.compute.tpus.queued-resources) {text}", "status": 1}


QUOTA = "Quota limit 'TPUV5sLitepodPerProjectPerZoneForTPUAPI' has been exceeded. Limit: 0 in zone us-west4-a."


@pytest.mark.parametrize("answers,message", [
    ({"create": [error(f"RESOURCE_EXHAUSTED: {QUOTA}")]},
     "no quota is left in us-west4-a for this, v5litepod-16 (TPUV5sLitepodPerProjectPerZoneForTPUAPI); request more"),
    ({"describe": ["FAILED\n", QUOTA]}, "no quota is left in us-west4-a for this, v5litepod-16 (TPUV5s"),
    ({"describe": ["FAILED\n", "An internal error"]}, "the request failed and was deleted; try again"),
    ({"describe": [{"error": AUTH, "status": 1}]}, "gcloud is not logged in; run: gcloud auth login"),
    ({"describe": [error("The required property [project] is not currently set.")]},
     "gcloud does not know the project; add --project ID"),
    ({"describe": [error("PERMISSION_DENIED: Permission 'tpu.queuedResources.get' denied on 'projects/p/locations'")]},
     "the account may not use TPUs in zone us-west4-a; check the zone"),
    ({"describe": [error("PERMISSION_DENIED: Cloud TPU API has not been used in project 1 before or it is disabled.")]},
     "the project does not use Cloud TPU yet; run: gcloud services enable"),
    ({"create": [error("INVALID_ARGUMENT: accelerator type not found")]},
     "gcloud rejects this: ERROR: (gcloud.compute.tpus.queued-resources) INVALID_ARGUMENT: accelerator type")])
def test_errors_of_gcloud_give_one_line_with_a_solution(play, answers, message):
    play.answers(**answers)
    status, _, errors = play.run("run", *SLICE, *TRAIN)
    told = [line for line in errors if not line.startswith("tpu_vm.sh: sb in us-west4-a")]
    assert status == 1 and len(told) == 1 and message in told[0]
    assert ("delete" in play.kinds) == ("FAILED\n" in answers.get("describe", ())), "nothing is left that counts"


@pytest.mark.parametrize("arguments,message", [
    ((), "no command: the commands are run, status, logs and down"), (("train",), "train: the commands are"),
    (("run", "--zone", "z"), "--name '': must be given"), (("down", "--name", "sb"), "--zone: must be given"),
    (("down", "--name", "Sp ace", "--zone", "z"), "--name 'Sp ace': must be given: up to 40 lower-case letters"),
    (("run", *ZONE, "--share", "a:/b", *TRAIN), "--type: must be given"),
    (("run", *ZONE, "--type", "v5litepod-16", *TRAIN), "--share '': must be given as HOST:/DIR"),
    (("run", *SLICE), "no command; write -- train"),
    (("run", *SLICE, "--slices", "none", *TRAIN), "--slices none: must"),
    (("run", *SLICE, "train"), "unknown flag train"), (("run", "--name"), "--name: needs a value"),
    (("run", *SLICE, "--", "train", "--workdir", "runs/base"), "--workdir: must be under /mnt/spanbert"),
    (("run", *SLICE, "--type", "v9-8", *TRAIN), "--type v9-8: unknown type")])
def test_wrong_arguments_give_a_one_line_error(play, arguments, message):
    status, out, errors = play.run(*arguments)
    assert status == 2 and not out and len(errors) == 1 and message in errors[0]
    assert not play.calls


@pytest.mark.skipif(not shutil.which("gcloud"), reason="needs gcloud, which checks its arguments without a network")
def test_gcloud_itself_accepts_the_arguments(play):
    lines = []
    for others in ((), ("--slices=2", "--on-demand", "--network=mine", "--project=mine")):
        _, out, _ = play.run("run", "--dry-run", *SLICE, *others, *TRAIN, "--config.data.path=it's a corpus")
        lines += [line for line in out.splitlines() if line.startswith("gcloud")]
    commands = [{"command_string": line} for line in [*dict.fromkeys(lines), lines[0] + " --no-such-flag"]]
    (play.folder / "commands.json").write_text(json.dumps(commands))
    checked = subprocess.run(["gcloud", "meta", "lint-gcloud-commands", "--commands-file",
                              str(play.folder / "commands.json")], capture_output=True, text=True)
    complaints = [result["error_message"] for result in json.loads(checked.stdout)]
    assert complaints[:-1] == [None] * len(set(lines)) and "--no-such-flag" in complaints[-1]
