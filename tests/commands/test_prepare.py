"""The verb `prepare`: flags reach the function, mistakes are one line and exit code 2."""
import argparse
import inspect
import subprocess
import sys

from spanbert_jax.commands import prepare as command
from spanbert_jax.corpus import open_corpus, prepare


def test_flags_mirror_the_function():
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    parsed = vars(parser.parse_args(["--source", "a", "--source", "b", "--out", "c"]))
    signature = inspect.signature(prepare).parameters
    assert parsed.pop("sources") == ["a", "b"] and parsed.pop("out") == "c"
    assert parsed == {name: parameter.default for name, parameter in signature.items()
                      if name not in ("sources", "out", "progress")}


def test_the_verb_prepares_and_refuses(tmp_path):
    (tmp_path / "a.txt").write_text("A first text, not long.\n")
    (tmp_path / "b.txt").write_text("Another text for the rows.\n")
    command = [sys.executable, "-m", "spanbert_jax", "prepare", "--source", str(tmp_path / "*.txt"), "--out",
               str(tmp_path / "out"), "--vocab-size", "100", "--length", "32"]
    first = subprocess.run(command, capture_output=True, text=True)
    assert first.returncode == 0 and "documents" in first.stderr, first.stderr
    assert open_corpus(tmp_path / "out").num_rows == {"train": 1, "validation": 1}
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0 and "up to date" in again.stderr
    wrong = subprocess.run([*command, "--blocks", "pairs"], capture_output=True, text=True)
    assert wrong.returncode == 2 and "blocks: sentences -> pairs" in wrong.stderr and wrong.stderr.count("\n") == 1
