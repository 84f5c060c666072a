"""Hostile files of texts and tokenizers: a one-line error, or a result, within limits of time and memory."""
import bz2
import gzip
import json
import resource
import subprocess
import sys
import time

import pytest

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.issues import DataIssues
from spanbert_jax.corpus.sources import FieldNames, read_documents, resolve_sources
from spanbert_jax.tasks import TASKS
from spanbert_jax.tasks.protocol import read_all
from tests.faults.hostile_text import MOST_MEMORY, MOST_SECONDS, outcomes
from tests.runs import ROOT

FEW, AT_ONCE = 60, 50


def check(outcome):
    assert "\n" not in outcome["error"] and outcome["seconds"] < MOST_SECONDS, outcome
    assert outcome["memory"] < MOST_MEMORY, outcome


def test_hostile_files_end_in_one_line(tmp_path, sweep, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    found = list(outcomes(range(FEW), tmp_path / "here"))
    for outcome in found:
        check(outcome)
    assert FEW / 3 < sum(bool(outcome["error"]) for outcome in found)
    assert not capfd.readouterr().err and [path.name for path in tmp_path.iterdir()] == ["here"]
    for first in range(FEW, FEW + sweep, AT_ONCE):  # processes of their own: a crash or a hang ends only one
        command = [sys.executable, "-m", "tests.faults.hostile_text", str(first), str(first + AT_ONCE), "here"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=AT_ONCE * MOST_SECONDS, preexec_fn=limit,
                              env={"PYTHONPATH": str(ROOT), "PATH": "", "JAX_PLATFORMS": "cpu"}, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        for line in done.stdout.splitlines():
            check(json.loads(line))


def limit():
    resource.setrlimit(resource.RLIMIT_AS, (8 * MOST_MEMORY, 8 * MOST_MEMORY))


@pytest.mark.parametrize("suffix, compress, start, content", [
    (".jsonl.gz", gzip.compress, b"", b"x"), (".txt.bz2", bz2.compress, b"", b"x y z. "),
    (".txt.gz", gzip.compress, b"", b"x"),
    (".csv.gz", gzip.compress, b'"', b"x\n"), (".tsv.gz", gzip.compress, b"", b"x")])
def test_a_compressed_file_of_3_gb_is_refused_early(suffix, compress, start, content, tmp_path):
    path = tmp_path / f"bomb{suffix}"
    path.write_bytes(compress(start) + compress(content * ((1 << 20) // len(content))) * 3000)  # members of one file
    begun, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"unpack to more than 100 times|a line of more than 64 MiB|a row of more"):
        for file in resolve_sources([str(path)], "auto"):
            for _ in read_documents(file, FieldNames(), DataIssues()):
                pass
    assert time.process_time() - begun < MOST_SECONDS
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) < MOST_MEMORY


@pytest.mark.parametrize("task, content, message", [
    ("question_answering", b'{"data": [{"title": "', "a part of its JSON has more than 64 MiB"),
    ("relation_extraction", b'[{"id": "', "a part of its JSON has more than 64 MiB"),
    ("token_classification", b'{"tokens": ["', "a line of more than 64 MiB")])
def test_a_json_text_of_3_gb_is_refused_early(task, content, message, tmp_path):
    path = tmp_path / "bomb.json"
    with open(path, "wb") as file:
        file.write(content)
        file.write(b"x" * (70 << 20))
        file.truncate(3 << 30)
    made = TASKS.get(task)
    with pytest.raises(UserError, match=message):
        read_all(made(made.Settings(length=384)), str(path), DataIssues())
