"""The launcher of local processes: output, exit statuses, signals and restarts."""
import concurrent.futures
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from launch.local import run_status
from spanbert_jax.cluster.exit_codes import DONE, FAILED, MISTAKE, NOT_WRITTEN, PEER_LOST, STOPPED
from tests.runs import evaluations, losses
from tests.streams import run_with

ROOT = pathlib.Path(__file__).resolve().parents[2]
# What every command starts with: its index, and how many there are.
CHILD = """
import os, signal, sys, threading, time
flags = dict(word.removeprefix("--").split("=") for word in sys.argv[1:])
index = int(flags["process"])
forever = threading.Event().wait
"""
# A run of three processes that communicates for ever.
MEETING = """
import sys, types
from spanbert_jax.commands import arguments, main

def run(args):
    arguments.join_processes(args)
    import jax
    import numpy as np
    from jax.experimental import multihost_utils
    while True:
        multihost_utils.process_allgather(np.asarray(1))
        print("met in", os.getpid(), flush=True)

import os
command = types.ModuleType("spanbert_jax.commands.train", "A command.")
command.add_arguments, command.run = arguments.add_process_arguments, run
sys.modules[command.__name__] = command
sys.exit(main(["train", *sys.argv[1:]]))
"""


def start(script, *flags, processes=2, before=CHILD):
    command = [sys.executable, "launch/local.py", "--processes", str(processes), *map(str, flags),
               "--", sys.executable, "-c", before + script]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            env={**os.environ, "PYTHONPATH": "."})


def run(script, *flags, **others):
    """Exit status, and the lines of both streams."""
    with start(script, *flags, **others) as launcher:
        out, errors = launcher.communicate(timeout=60)
    return launcher.returncode, out.decode().splitlines(), errors.decode().splitlines()


def pids(launcher, word, count):
    """Process ids by index, as soon as `count` processes have printed a line `[index] ... word PID`."""
    found = {}
    for line in launcher.stdout:
        match = re.search(rb"^\[(\d)\] .*" + word.encode() + rb" (\d+)$", line)
        if match:
            found[int(match[1])] = int(match[2])
        if len(found) == count:
            return found
    raise AssertionError(launcher.stderr.read())


def gone(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def wait_until_gone(some):
    while not all(map(gone, some)):
        os.sched_yield()


def lose(number, victim):
    """Kills or hangs one of three processes; returns for how many seconds the others live, the exit status of the
    launcher, and whether all processes are gone."""
    with start(MEETING, processes=3, before="") as launcher:
        some = pids(launcher, "met in", 3)
        began = time.monotonic()
        os.kill(some[victim], number)
        launcher.communicate(timeout=40)
        seconds = time.monotonic() - began
    return seconds, launcher.returncode, all(map(gone, some.values()))


@pytest.fixture(scope="module")
def hung():
    """`lose` of a hung process. The other tests run while it waits for the heartbeat."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        yield pool.submit(lose, signal.SIGSTOP, 0)


def test_each_line_is_printed_whole_with_its_process(hung):  # the first test starts `hung`
    status, out, errors = run("""
for number in range(2000):
    sys.stdout.write(f"line {number} of ")
    sys.stdout.flush()
    sys.stdout.write(f"{index} " + "x" * 200 + chr(10))
print("10%", end=chr(13)), print("20%", end=chr(13)), print("30%")
print("windows", end=chr(13) + chr(10))
print("to stderr", index, file=sys.stderr)
sys.stdout.write("no end of line")
""")
    assert status == DONE
    for index in range(2):
        own = [line for line in out if line.startswith(f"[{index}] ")]
        assert own == [*(f"[{index}] line {number} of {index} {'x' * 200}" for number in range(2000)),
                       *(f"[{index}] {text}" for text in ("30%", "windows", "no end of line"))]
    assert len(out) == 2 * 2003 and sorted(errors) == ["[0] to stderr 0", "[1] to stderr 1"]


def test_each_process_gets_its_arguments_and_devices():
    status, out, _ = run("print(flags, os.environ['JAX_PLATFORMS'], os.environ['JAX_NUM_CPU_DEVICES'])", "--devices", 3)
    assert status == DONE
    ports = {re.search(r"'coordinator': '127.0.0.1:(\d+)'", line)[1] for line in out}
    assert len(ports) == 1
    assert sorted(out) == [f"[{index}] {{'coordinator': '127.0.0.1:{min(ports)}', 'processes': '2', "
                           f"'process': '{index}'}} cpu 3" for index in range(2)]


@pytest.mark.parametrize("statuses,expected", [
    ((DONE, DONE), DONE), ((STOPPED, STOPPED), STOPPED), ((-signal.SIGKILL, PEER_LOST), PEER_LOST),
    ((-signal.SIGABRT, MISTAKE, PEER_LOST), MISTAKE), ((PEER_LOST, NOT_WRITTEN), NOT_WRITTEN),
    ((134, FAILED), FAILED), ((-signal.SIGSEGV, PEER_LOST), FAILED), ((DONE, -signal.SIGABRT), PEER_LOST),
    ((143, 134), PEER_LOST),
    ((STOPPED, -signal.SIGABRT), STOPPED), ((137,), PEER_LOST)])
def test_the_status_of_a_run_is_that_of_its_cause(statuses, expected):
    assert run_status(statuses) == expected


def test_a_user_error_of_one_process_ends_the_others_without_a_restart():
    status, _, errors = run("sys.exit(2) if index else forever()", "--restarts", 3)
    assert status == MISTAKE
    assert errors == ["launch: process 1 ended with status 2", "launch: killing the remaining processes"]


def test_restarts_have_a_limit(tmp_path):
    count = f"""
with open({str(tmp_path)!r} + f"/{{index}}", "a+") as done:
    done.write("x")
    done.seek(0)
    attempt = len(done.read())
print("attempt", attempt, flags["coordinator"])
"""
    status, out, errors = run(count + "sys.exit(0 if attempt == 3 else 70)", "--restarts", 5)
    assert status == DONE
    assert [line for line in errors if "restart" in line] == [
        f"launch: status 70: restart {number} of 5" for number in (1, 2)]
    assert len({line.split()[-1] for line in out}) == 3, "a port of its own for each attempt"
    status, _, errors = run(count + "sys.exit(75)", "--restarts", 1)
    assert status == STOPPED and errors == ["launch: status 75: restart 1 of 1"]


def test_signals_are_forwarded_once_to_each_process():
    script = """
def note(number, frame):
    print("got", signal.Signals(number).name, flush=True)
    ended.set()
for number in signal.SIGINT, signal.SIGTERM, signal.SIGHUP:
    signal.signal(number, note)
ended = threading.Event()
print("ready", os.getpid(), flush=True)
ended.wait()
sys.exit(75)
"""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        with start(script, "--restarts", 3) as launcher:
            pids(launcher, "ready", 2)
            launcher.send_signal(number)
            out, errors = launcher.communicate(timeout=20)
        assert sorted(out.decode().splitlines()) == [f"[0] got {number.name}", f"[1] got {number.name}"]
        assert launcher.returncode == STOPPED and not errors, "told to stop, it does not run the command again"


def test_a_signal_before_a_process_has_a_handler_is_a_stop():
    with start("print('ready', os.getpid(), flush=True); forever()") as launcher:
        pids(launcher, "ready", 2)
        launcher.terminate()
        launcher.communicate(timeout=20)
    assert launcher.returncode == STOPPED


def test_a_second_signal_kills():
    script = """
signal.signal(signal.SIGTERM, lambda number, frame: print("deaf", os.getpid(), flush=True))
print("ready", os.getpid(), flush=True)
while True: signal.pause()
"""
    with start(script) as launcher:
        some = pids(launcher, "ready", 2)
        launcher.terminate()
        pids(launcher, "deaf", 2)
        launcher.terminate()
        launcher.communicate(timeout=20)
    assert launcher.returncode == PEER_LOST and all(map(gone, some.values()))


def test_a_second_hangup_does_not_kill():
    script = """
def note(number, frame):
    print("got", os.getpid(), flush=True)
signal.signal(signal.SIGHUP, note), signal.signal(signal.SIGUSR1, lambda *_: sys.exit(75))
print("ready", os.getpid(), flush=True)
while True: signal.pause()
"""
    with start(script) as launcher:
        some = pids(launcher, "ready", 2)
        launcher.send_signal(signal.SIGHUP)
        pids(launcher, "got", 2)
        launcher.send_signal(signal.SIGHUP)
        for pid in some.values():
            os.kill(pid, signal.SIGUSR1)
        out, errors = launcher.communicate(timeout=20)
    assert launcher.returncode == STOPPED and not out and not errors


def test_without_a_reader_of_its_output_the_processes_still_end_as_they_would(tmp_path):
    script = f"print('x' * 100_000, flush=True); open({str(tmp_path)!r} + f'/{{index}}', 'w'); sys.exit(75)"
    argv = [sys.executable, "launch/local.py", "--", sys.executable, "-c", CHILD + script]
    for fault in ("reader left", "both closed"):
        assert run_with(fault, argv, {**os.environ, "PYTHONPATH": "."}).returncode == STOPPED
        assert [(tmp_path / name).unlink() for name in "01"] == [None, None]


def test_processes_die_with_a_killed_launcher():
    with start("print('ready', os.getpid(), flush=True); forever()") as launcher:
        some = pids(launcher, "ready", 2)
        launcher.kill()
    wait_until_gone(some.values())


@pytest.mark.parametrize("flags,message", [
    (["--processes", "0", "--", "true"], "at least 1"), (["--processes", "2"], "no command given"),
    (["--", "no-such-program"], "no-such-program: cannot be run: No such file")])
def test_wrong_arguments(flags, message):
    done = subprocess.run([sys.executable, "launch/local.py", *flags], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": "."})
    assert done.returncode == MISTAKE and message in done.stderr


def test_a_dry_run_prints_the_processes_and_starts_none(tmp_path):
    mark = tmp_path / "started"
    command = [sys.executable, "-c", f"open({str(mark)!r}, 'w')", "it's $HOME"]
    done = subprocess.run([sys.executable, "launch/local.py", "--processes=2", "--devices=3", "--dry-run", "--",
                           *command], cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": "."})
    assert done.returncode == DONE and not done.stderr and not mark.exists()
    lines = [shlex.split(line) for line in done.stdout.splitlines()]
    assert [line[-1] for line in lines] == ["--process=0", "--process=1"]
    for line in lines:
        assert "JAX_NUM_CPU_DEVICES=3" in line and line[-7:-3] == command
        assert line[-3].startswith("--coordinator=127.0.0.1:") and line[-2] == "--processes=2"
    assert subprocess.run(lines[0][:-3]).returncode == 0 and mark.exists(), "a line can be run as it is printed"


# Runs of several devices in each process are compared in tests/faults/test_elastic.
def test_two_processes_compute_the_same_losses_as_one(unbroken, unbroken_pair):
    one, two = ([*losses(workdir).values(), *(line["masked_loss"] for line in evaluations(workdir))]
                for workdir in (unbroken, unbroken_pair))
    assert len(one) == 22
    np.testing.assert_allclose(two, one, rtol=1e-5)


# Another than the first, hung, is what the heartbeat is tested with in tests/faults.
@pytest.mark.parametrize("number,victim", [(signal.SIGKILL, 0), (signal.SIGKILL, 2), (signal.SIGSTOP, 0)])
def test_a_dead_or_hung_peer_ends_all_within_15_seconds(number, victim, hung):
    seconds, status, all_gone = hung.result() if number == signal.SIGSTOP else lose(number, victim)
    assert seconds < 15 and status == PEER_LOST and all_gone
