"""A preparation stopped by a real signal leaves no directory and no process."""
import functools
import os
import pathlib
import random
import signal
import string
import subprocess
import sys
import threading

import pytest

from spanbert_jax.common.errors import UserError
from spanbert_jax.corpus import preparation, prepare, wait_for_corpus
from spanbert_jax.corpus.processes import map_in_processes
from tests.corpus.test_preparation import snapshot
from tests.disks import small_disk

# Prepares like a run does, prints the processes that it starts, and blocks at the given place until it is stopped.
STOPPED = """
import pathlib, subprocess, sys
from spanbert_jax.cluster.stopping import Stopped, StopRequest
from spanbert_jax.corpus import builder, preparation, processes

class Popen(subprocess.Popen):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        print("process", self.pid, flush=True)

def halting(function):
    def halt(*args, **kwargs):
        print("here", flush=True)
        sys.stdin.read()
        return function(*args, **kwargs)
    return halt

def halting_after_one(function):
    def generate(*args):
        made = function(*args)
        yield next(made)
        print("here", flush=True)
        sys.stdin.read()
        yield from made
    return generate

subprocess.Popen = Popen
source, out, vocabulary, place = sys.argv[1:]
if place == "writing rows":
    preparation.map_in_order = halting_after_one(preparation.map_in_order)
elif place == "giving rows to TFDS":
    builder._failed_writes = halting(builder._failed_writes)
elif place == "training a vocabulary":
    receive = processes._receive
    processes._receive = lambda process: print("here", flush=True) or receive(process)
elif place == "putting in place":
    rename = pathlib.Path.rename
    def rename_and_halt(path, target):
        halted = rename(path, target)
        return halting(lambda: halted)() if path.name == "out" else halted
    pathlib.Path.rename = rename_and_halt
else:
    setattr(preparation, place, halting(getattr(preparation, place)))
try:
    with StopRequest():
        tokenizer = {"vocab_size": 30_000} if place == "training a vocabulary" else {"tokenizer": vocabulary}
        preparation.prepare(source, out, length=64, workers=2, overwrite=True, progress=False, **tokenizer)
except (Stopped, KeyboardInterrupt) as stop:
    print("stopped by", stop, flush=True)
"""


def start(books, out, vocabulary, place):
    return subprocess.Popen([sys.executable, "-c", STOPPED, str(books), str(out), vocabulary, place], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.PIPE)


def is_alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("number,place", [
    *((signal.SIGTERM, place) for place in ("scan_sources", "resolve_sources", "writing rows", "giving rows to TFDS",
                                            "make_report", "_write_report", "putting in place")),
    (signal.SIGINT, "writing rows"), (signal.SIGINT, "putting in place")])
def test_a_signal_leaves_only_the_previous_corpus(number, place, books, tmp_path, vocabulary):
    out = tmp_path / "out"
    prepare(str(books), out, tokenizer=vocabulary, length=32, progress=False)
    before = snapshot(tmp_path)
    process = start(books, out, vocabulary, place)
    lines = iter(process.stdout.readline, "here\n")
    workers = [int(line.split()[1]) for line in lines]
    os.kill(process.pid, number)
    output, errors = process.communicate(timeout=30)
    assert output == f"stopped by {signal.Signals(number).name}\n" and not errors
    assert len(workers) == (2 if "rows" in place else 4 if place.startswith(("make", "_wr", "putt")) else 0)
    assert not any(map(is_alive, workers))
    assert snapshot(tmp_path) == before and sorted(path.name for path in tmp_path.iterdir()) == ["books", "out"]


def test_a_signal_ends_the_training_of_a_vocabulary(tmp_path):
    """The training library ignores signals, and takes seconds for this many words."""
    draw = random.Random(0)
    (tmp_path / "words.txt").write_text(" ".join(
        "".join(draw.choices(string.ascii_lowercase, k=draw.randrange(3, 12))) for _ in range(150_000)))
    process = start(tmp_path / "words.txt", tmp_path / "out", "", "training a vocabulary")
    worker = int(process.stdout.readline().split()[1])
    assert process.stdout.readline() == "here\n"
    os.kill(process.pid, signal.SIGTERM)
    assert process.communicate(timeout=30)[0] == "stopped by SIGTERM\n"
    assert not is_alive(worker) and [path.name for path in tmp_path.iterdir()] == ["words.txt"]


def signalled(item):
    """Sends the worker the signals that a terminal or a scheduler sends to all processes."""
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
    return item, os.getpid()


def test_workers_ignore_signals_and_end_when_closed():
    results = map_in_processes(functools.partial(functools.partial, signalled), [1, 2, 3], 2)
    (_, (first, pid)), (_, (second, other)) = next(results), next(results)
    assert (first, second) == (1, 2) and is_alive(pid) and is_alive(other) and pid != other
    results.close()
    assert not is_alive(pid) and not is_alive(other)


def test_waiting_for_the_corpus_of_another_process(books, tmp_path, vocabulary, monkeypatch):
    monkeypatch.setattr(preparation, "_POLL_SECONDS", 0.01)
    found = []
    waiter = threading.Thread(target=lambda: found.append(wait_for_corpus(tmp_path / "out")))
    waiter.start()
    made = prepare(str(books), tmp_path / "out", tokenizer=vocabulary, length=64, progress=False)
    waiter.join(timeout=20)
    assert found[0].identity == made.identity


def test_a_signal_ends_the_wait(tmp_path):
    # A shell starts background jobs with SIGINT ignored, and these tests may be one.
    script = ("import signal, sys; from spanbert_jax.corpus import preparation; "
              "signal.signal(signal.SIGINT, signal.default_int_handler); "
              "preparation.time.sleep = lambda seconds: (print('waiting', flush=True), sys.stdin.read()); "
              "preparation.wait_for_corpus(sys.argv[1])")
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "none")], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "waiting\n"
    os.kill(process.pid, signal.SIGINT)
    assert "KeyboardInterrupt" in process.communicate(timeout=20)[1]


def test_a_full_disk_is_an_error_and_nothing_is_left(books, tmp_path, vocabulary):
    with small_disk(tmp_path / "disk", "250k") as disk:
        with pytest.raises(UserError, match=r"out .*: cannot be written \(.*No space left.*\); make room") as caught:
            prepare(str(books), disk / "out", tokenizer=vocabulary, length=64, workers=1, progress=False)
        assert "\n" not in str(caught.value) and list(disk.iterdir()) == []
