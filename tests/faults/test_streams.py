"""Standard streams that are closed, full, ASCII or left by their reader, under every command; a closed terminal."""
import fcntl
import os
import pathlib
import pty
import shutil
import subprocess
import sys
import termios

import pytest

from spanbert_jax.cluster.exit_codes import DONE, NOT_WRITTEN, STOPPED
from tests.inference.conftest import models  # noqa: F401  # a fixture
from tests.runs import Process, assert_same_run, run_here
from tests.streams import FAULTS, run_with
from tests.tasks.small import texts, write

# Commands that print their result, and those that write files; {word} stands for what the fixture `words` has for it.
PRINTING = {
    "config": "config --markdown", "docs": "docs reliability", "plan": "plan --budget {budget}",
    "checkpoints": "checkpoints --workdir {run} --verify", "evaluate": "evaluate --workdir {run}",
    "fill": "fill --model {run} {text}", "predict to stdout": "predict --model {model} --input {texts} --output -"}
WRITING = {
    "prepare": "prepare --source {sources} --out {new} --vocab-size 600", "train": "train --workdir {new} {config}",
    "sweep": "sweep --workdir {new} {config}", "predict": "predict --model {model} --input {texts} --output {new}",
    "export": "export --workdir {run} --format huggingface --out {new}",
    "import": "import --from {start} --out {new}"}


def test_a_run_whose_reader_left_ends_as_without_interruption(files, unbroken, tmp_path):
    with Process(files, tmp_path) as process:
        process.until("step 9/")  # as `| grep -m1 "step 9/"`
        assert process.leave() == DONE
    assert_same_run(tmp_path, unbroken)


def test_a_run_whose_terminal_is_closed_saves_and_continues(files, unbroken, tmp_path):
    master, terminal = pty.openpty()
    argv = [sys.executable, "-m", "spanbert_jax", *files.arguments("train", tmp_path, "--config.checkpoint.every=0")]
    process = subprocess.Popen(argv, env=files.environment(), stdin=terminal, stdout=terminal, stderr=terminal,
                               start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
    os.close(terminal)
    with open(master, "rb", buffering=0) as screen:
        seen = b""
        while b"step 5/20 " not in seen:
            seen += screen.read(1000)
    assert process.wait() == STOPPED  # the system has sent SIGHUP, and what is printed afterwards is lost
    assert list(tmp_path.glob("checkpoints/[0-9]*"))
    run_here(files, tmp_path)
    assert_same_run(tmp_path, unbroken)


@pytest.fixture(scope="module")
def words(request, files, start, tmp_path_factory, sweep) -> dict[str, list[str]]:
    """What stands for the words in braces."""
    folder = tmp_path_factory.mktemp("streams")
    model = request.getfixturevalue("models")["text_classification"] if sweep else folder
    config = [f"--config={files.folder / 'config.py'}", f"--config.data.path={files.corpus}",
              "--config.train.duration=3 steps"]
    return {"run": [str(request.getfixturevalue("unbroken"))], "start": [start], "model": [str(model)],
            "texts": [write(folder / "texts.jsonl", texts(20))], "sources": [str(files.folder / "texts")],
            "text": ["Un café [MASK] is"], "budget": ["4 v5e chips, 1 day"], "config": config,
            "new": [str(folder / "new")]}


def run_command(command: str, words: dict[str, list[str]], fault: str, environ: dict[str, str]):
    """Runs a command; what it writes is removed, and must be there."""
    argv = [part for word in command.split() for part in (words[word[1:-1]] if word.startswith("{") else [word])]
    done = run_with(fault, [sys.executable, "-m", "spanbert_jax", *argv], environ)
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr, done.stderr
    if "{new}" in command:
        written = pathlib.Path(words["new"][0])
        assert written.exists(), done.stderr
        shutil.rmtree(written) if written.is_dir() else written.unlink()
    return done


def test_fill_prints_other_characters_as_escapes_in_ascii(files, words):
    done = run_command(PRINTING["fill"], words, "ASCII", files.environment())
    assert done.returncode == DONE and done.stdout.startswith("Un caf\\xe9 [MASK] is\n") and done.stdout.isascii()


@pytest.mark.parametrize("name", [*PRINTING, *WRITING])
def test_each_command_under_each_fault(name, files, words, sweep):
    if not sweep:
        pytest.skip("103 processes; --sweep starts them")
    command = {**PRINTING, **WRITING}[name]
    expected = run_command(command, words, "", files.environment())
    assert expected.returncode == DONE and (expected.stdout or name in WRITING), expected.stderr
    for fault in FAULTS:
        done = run_command(command, words, fault, files.environment())
        lost = name in PRINTING and fault.startswith(("stdout", "both"))
        assert done.returncode == (NOT_WRITTEN if lost else DONE), f"{fault}: {done.stderr}"
        if lost and fault != "both closed":
            line = done.stderr.splitlines()[-1]
            assert line.startswith(f"spanbert-jax {command.split()[0]}: standard output: cannot be written"), line
        if name in PRINTING and fault in ("stderr closed", "stderr full", "stdin closed"):
            assert without_times(done.stdout) == without_times(expected.stdout), fault


def without_times(printed: str) -> list[str]:
    """The lines that do not depend on the time."""
    return [line for line in printed.splitlines() if not line.startswith("read ")]
