"""The command `prepare`: flags reach the settings, and mistakes are one line with exit code 2."""
import argparse
import io
import pathlib
import subprocess
import sys

from spanbert_jax.commands import prepare as command
from spanbert_jax.corpus import open_corpus
from spanbert_jax.corpus.settings import CorpusSettings


def parse(*flags: str) -> dict:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return vars(parser.parse_args(["--source", "a", "--source", "b", "--out", "c", *flags]))


def test_flags_and_their_defaults():
    assert parse() == {
        "sources": ["a", "b"], "out": "c", "tokenizer": "", "vocab_size": 0, "tokenizer_model": "wordpiece",
        "character_coverage": 0.9995,
        "accents": "auto", "lowercase": None, "format": "auto",
        "text_field": "text", "annotation_field": "", "length": 512, "blocks": "sentences", "pack": False,
        "validation_fraction": 0.01, "short_sequence_probability": 0.0, "seed": 0, "workers": None, "overwrite": False}


def test_every_flag_reaches_the_corpus(monkeypatch):
    calls = []
    monkeypatch.setattr(command, "prepare_corpus", lambda settings, **call: calls.append((settings, call)))
    command.run(argparse.Namespace(**parse(
        "--tokenizer", "vocab.txt", "--no-lowercase", "--format", "jsonl", "--text-field", "body",
        "--annotation-field", "names", "--length", "64", "--blocks", "pairs", "--validation-fraction", "0.2",
        "--short-sequence-probability", "0.1", "--seed", "3", "--workers", "2", "--overwrite")))
    assert calls == [(
        CorpusSettings(sources=("a", "b"), tokenizer="vocab.txt", format="jsonl", text_field="body",
                       annotation_field="names", length=64, blocks="pairs", validation_fraction=0.2,
                       short_sequence_probability=0.1),
        {"out": "c", "lowercase": False, "seed": 3, "workers": 2, "overwrite": True})]


def test_standard_input_is_a_source(monkeypatch):
    read = []
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"A text.\n")))
    monkeypatch.setattr(command, "prepare_corpus",
                        lambda settings, **call: read.append(pathlib.Path(settings.sources[2]).read_text()))
    command.run(argparse.Namespace(**parse("--source", "-")))
    assert read == ["A text.\n"]


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
