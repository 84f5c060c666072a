"""The command line: help, version, misspelled commands and flags, completion, and output that cannot be written."""
import errno
import os
import subprocess
import sys

import jax
import pytest
from tokenizers import normalizers

import spanbert_jax
from spanbert_jax.cluster.exit_codes import DONE, FAILED, NOT_WRITTEN, STOPPED
from spanbert_jax.commands import main
from spanbert_jax.commands.main import COMMANDS
from tests.streams import FAULTS, run_with


@pytest.mark.parametrize("argv,message", [
    (["trian"], "spanbert-jax: unknown command 'trian'; did you mean 'train'? allowed: config, plan, prepare, train, "),
    (["predict", "--modle=m"], "spanbert-jax predict: unknown flag --modle; did you mean '--model'? allowed: --help, "
                               "--model, --input, "),
    (["train", "--confg", "x"], "spanbert-jax train: unknown flag --confg; did you mean '--config'? allowed: "),
    (["checkpoints", "--workdir", "x", "--config.seed=1"], "spanbert-jax checkpoints: unknown flag --config.seed; ")])
def test_misspelled_commands_and_flags_are_one_line(argv, message, capsys):
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith(message) and error.count("\n") == 1


def test_the_version_and_the_commands_are_printed(capsys):
    assert main(["--version"]) == 0 and capsys.readouterr().out == f"spanbert-jax {spanbert_jax.__version__}\n"
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in COMMANDS)
    assert main([]) == 2 and "no command given" in capsys.readouterr().err


def test_a_missing_accelerator_is_one_line(monkeypatch, capsys):
    def run(args):
        jax.local_devices(backend="rocm")

    monkeypatch.setattr("spanbert_jax.commands.docs.run", run)
    monkeypatch.setenv("JAX_PLATFORMS", "rocm")
    assert main(["docs"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("spanbert-jax docs: JAX_PLATFORMS='rocm': JAX cannot use this platform here (")
    assert error.count("\n") == 1


def test_a_file_that_no_command_expects_to_fail_is_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "a\nloop").symlink_to("a\nloop")
    monkeypatch.setattr("spanbert_jax.commands.docs.run", lambda args: os.scandir(tmp_path / "a\nloop"))
    assert main(["docs"]) == FAILED
    reason = "Too many levels of symbolic links; fix that, or give another path"
    assert capsys.readouterr().err == f"spanbert-jax docs: {tmp_path}/a\\nloop: {reason}\n"


def test_a_library_that_fails_inside_is_one_line(monkeypatch, capsys):
    damaged = normalizers.Precompiled(b"\x08\0\0\0\xff\xff\xff\xff\x01\x02\x03\x04abc")
    monkeypatch.setattr("spanbert_jax.commands.docs.run", lambda args: damaged.normalize_str("text"))
    assert main(["docs"]) == FAILED
    error = capsys.readouterr().err
    assert error.startswith("spanbert-jax docs: a library failed (index out of bounds: ") and error.count("\n") == 1


@pytest.mark.parametrize("code,status,line", [
    (errno.ENOSPC, NOT_WRITTEN, "spanbert-jax docs: standard output: cannot be written (No space left on device)\n"),
    (errno.EPIPE, DONE, "")])
def test_output_that_cannot_be_written_is_one_line(code, status, line, monkeypatch, capsys):
    class Full:
        def write(self, text):
            return len(text)

        def flush(self):
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(sys, "stdout", Full())
    assert main(["docs"]) == status
    assert capsys.readouterr().err == line


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("argv", [["docs", "faq"], ["docs", "--help"]])
def test_a_command_that_prints_its_result_fails_if_it_cannot(argv, fault):
    done = run_with(fault, [sys.executable, "-m", "spanbert_jax", *argv])
    lost = fault.startswith(("stdout", "both"))
    assert done.returncode == (NOT_WRITTEN if lost else DONE)
    assert done.stderr.count("\n") == (lost and fault != "both closed")
    assert lost or fault == "reader left" or len(done.stdout.splitlines()) > 10


def test_a_signal_while_a_class_is_made_is_a_stop():
    """As during imports, where Python 3.11 raises another error from what `__set_name__` raises."""
    program = '''
import os, signal, sys
from spanbert_jax.commands import main

class Descriptor:
    def __set_name__(self, owner, name):
        os.kill(os.getpid(), signal.SIGTERM)

def stopped(name):
    type("Owner", (), {"field": Descriptor()})

sys.modules["spanbert_jax.commands.main"].import_command = stopped
sys.argv = ["spanbert-jax", "fill", "--model", "x"]
main()
'''
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == STOPPED
    assert done.stderr == "spanbert-jax fill: stopped by SIGTERM; run the same command again to continue\n"


def test_a_bug_prints_its_traceback_and_fails():
    script = "import sys; from spanbert_jax.commands import docs, main; docs.run, sys.argv[1:] = None, ['docs']; main()"
    for fault in ("", "stderr full"):
        done = run_with(fault, [sys.executable, "-c", script])
        assert done.returncode == FAILED and done.stderr.count("Traceback") == (not fault)


def test_commands_flags_and_values_complete_in_bash(capsys):
    assert main(["completion"]) == 0
    printed = capsys.readouterr().out
    assert main(["completion", "bash"]) == 0 and capsys.readouterr().out == printed
    script = printed + """
complete_line() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _spanbert_jax; echo "${COMPREPLY[*]}"; }
complete_line spanbert-jax ev
complete_line spanbert-jax predict --model runs/x --in
complete_line spanbert-jax predict --model ''
complete_line spanbert-jax export --format o
"""
    done = subprocess.run(["bash", "-u"], input=script, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["evaluate", "--input", "", "onnx"], done.stderr
