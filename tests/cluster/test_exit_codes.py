"""Exit statuses: which are retryable, and those of the command line."""
import errno
import os
import signal
import subprocess
import sys
import types

import pytest
from safetensors import SafetensorError

from spanbert_jax.cluster.exit_codes import DONE, FAILED, MISTAKE, NOT_WRITTEN, PEER_LOST, STOPPED, retryable
from spanbert_jax.commands import main
from spanbert_jax.common.errors import RunFailed, SavesFailed, UserError


def test_retryable_statuses():
    assert [status for status in (DONE, FAILED, MISTAKE, PEER_LOST, NOT_WRITTEN, STOPPED) if retryable(status)] == [
        PEER_LOST, STOPPED]
    # As reported by `subprocess`, and by a shell.
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGABRT, signal.SIGHUP):
        assert retryable(-number) and retryable(128 + number)
    assert not retryable(-signal.SIGSEGV) and not retryable(128 + signal.SIGSEGV)


FULL = os.strerror(errno.ENOSPC)


@pytest.fixture
def command(monkeypatch):
    """The command `train` without a `run` function, which a test sets."""
    module = types.ModuleType("spanbert_jax.commands.train", "A command.")
    module.add_arguments = lambda parser: None
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


@pytest.mark.parametrize("error,status,line", [
    (UserError("wrong field"), MISTAKE, "wrong field"), (RunFailed("not finite"), FAILED, "not finite"),
    (SavesFailed("disk full"), NOT_WRITTEN, "disk full"),
    (SafetensorError(f"I/O error: {FULL} (os error 28)"), NOT_WRITTEN,
     "a file: cannot be written (no space left on the disk); make room, then run the same command again"),
    (UserError(f"out: cannot be written ({FULL})"), NOT_WRITTEN, f"out: cannot be written ({FULL})"),
    (KeyboardInterrupt(), STOPPED, "stopped by SIGINT; run the same command again to continue")])
def test_errors_are_one_line_messages(command, capsys, error, status, line):
    def run(args):
        raise error
    command.run = run
    assert main(["train"]) == status
    assert capsys.readouterr().err == f"spanbert-jax train: {line}\n"


def test_a_bug_keeps_its_traceback(command):
    def run(args):
        raise ValueError("Gloo failed: connection reset by peer")  # a run of one process has no peer
    command.run = run
    with pytest.raises(ValueError, match="Gloo"):
        main(["train"])


def test_the_status_of_a_command_is_returned(command):
    command.run = lambda args: STOPPED
    assert main(["train"]) == STOPPED


def test_a_stop_does_not_wait_for_a_library_call():
    script = """
import sys, threading, types
from spanbert_jax.cluster.stopping import StopRequest
from spanbert_jax.commands import main

def compile():
    print("compiling", flush=True)
    threading.Event().wait()

def run(args):
    with StopRequest() as stop:
        stop.interruptible(compile)

command = types.ModuleType("spanbert_jax.commands.train", "A command.")
command.add_arguments, command.run = lambda parser: None, run
sys.modules[command.__name__] = command
# Not a daemon thread, as in some libraries: a normal exit of Python would wait for it.
threading.Thread(target=threading.Event().wait).start()
print("printed before")
sys.exit(main(["train"]))
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True)
    assert process.stdout.readline() == "printed before\n" and process.stdout.readline() == "compiling\n"
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == STOPPED
    assert errors == "spanbert-jax train: stopped by SIGTERM; run the same command again to continue\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_preparation_stops_at_once_and_leaves_nothing(tmp_path, number):
    process = subprocess.Popen(
        [sys.executable, "-m", "spanbert_jax", "prepare", "--source", "python", "--out", str(tmp_path / "corpus"),
         "--vocab-size", "1000"], stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "Gathering" in line:
            break
    assert [name[:8] for name in os.listdir(tmp_path)] == [".corpus."]
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == STOPPED
    assert errors == f"spanbert-jax prepare: stopped by {number.name}; run the same command again to continue\n"
    assert os.listdir(tmp_path) == []
