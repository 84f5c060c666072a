"""launch/common.sh, and shellcheck on all shell scripts."""
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from launch.local import run_status
from spanbert_jax.cluster.exit_codes import DONE, FAILED, MISTAKE, NOT_WRITTEN, PEER_LOST, STOPPED, retryable

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPTS = sorted(path.relative_to(ROOT).as_posix() for pattern in ("launch/**/*.sh", "launch/*.sbatch", "tests/**/*.sh")
                 for path in ROOT.glob(pattern))
# Beside this Python, where the extra puts it, or wherever else.
SHELLCHECK = shutil.which("shellcheck", path=f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}")


def shell(script, *arguments):
    done = subprocess.run(["bash", "-euc", f"source launch/common.sh; {script}", "bash", *arguments], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_scripts_and_python_agree_on_retryable_statuses():
    again = shell("for status in {0..255}; do if retryable $status; then echo $status; fi; done").split()
    assert [int(status) for status in again] == [status for status in range(256) if retryable(status)]


@pytest.mark.parametrize("statuses", [
    (DONE, DONE), (STOPPED, STOPPED), (137, PEER_LOST), (134, MISTAKE, PEER_LOST), (PEER_LOST, NOT_WRITTEN),
    (134, FAILED), (DONE, 134), (STOPPED, 134), (PEER_LOST, PEER_LOST), (134, 134), (143, 134)])
def test_scripts_and_python_agree_on_the_status_of_a_run(tmp_path, statuses):
    notes = tmp_path / "statuses"
    notes.write_text("".join(f"{status}\n" for status in statuses))
    status = int(shell('run_status "$@"', str(notes), str(max(statuses))))
    # Python makes one of all that only says that a process was lost.
    lost = (134, 137, 143)
    assert (PEER_LOST if status in lost else status) == run_status(statuses)


def test_without_statuses_of_processes_that_of_the_run_is_used(tmp_path):
    assert shell('run_status "$@"', str(tmp_path / "none"), "137") == "137\n"


@pytest.mark.parametrize("words", [
    ["plain", "--flag=a/b:c,d%", "x@y"], ["two words", "it's", '"', "$HOME `id`", "--flag=it's $x", "--flag=", ""],
    ["--config.a=(1, 2)", "line\nbreak", "*", "~", "#", "é"]])
def test_quoted_words_are_parsed_back_unchanged(words):
    line = shell('quoted "$@"', *words)
    read = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, text=True).stdout
    assert read.split("\0")[:-1] == words


def test_only_necessary_words_are_quoted():
    assert shell('quoted "$@"', "a", "--b=c", "d e", "--f=g h") == "a --b=c 'd e' --f='g h'\n"


@pytest.mark.skipif(not SHELLCHECK, reason="needs shellcheck (extra dev)")
@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck_finds_nothing(script):
    done = subprocess.run([SHELLCHECK, "--external-sources", "--shell=bash", script], cwd=ROOT, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stdout
