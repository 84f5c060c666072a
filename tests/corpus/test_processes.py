"""Worker processes: order of results, errors, dead workers."""
import functools
import os
import select
import signal
import subprocess
import sys

import pytest
from tokenizers import normalizers

from spanbert_jax.common.errors import RunFailed, UserError
from spanbert_jax.corpus.processes import map_in_order


def make_function(kind):
    def square(item):
        if item == 3 and kind == "die":
            os._exit(9)
        if item == 3 and kind == "fail":
            raise KeyError("three")
        if item == 3 and kind == "panic":
            normalizers.Precompiled(b"\x08\0\0\0\xff\xff\xff\xff\x01\x02\x03\x04abc").normalize_str("text")
        return item * item, b"x" * 1_000_000  # larger than a pipe holds
    return square


@pytest.mark.parametrize("workers, count", [(1, 4), (2, 7), (3, 2), (2, 0)])
def test_results_are_in_order(workers, count):
    found = list(map_in_order(functools.partial(make_function, ""), iter(range(count)), workers))
    assert [(item, result[0]) for item, result in found] == [(i, i * i) for i in range(count)]


@pytest.mark.parametrize("kind, error", [("die", UserError), ("fail", KeyError), ("panic", RunFailed)])
def test_a_worker_that_dies_or_fails_ends_the_job(kind, error):
    with pytest.raises(error):
        list(map_in_order(functools.partial(make_function, kind), range(20), 2))


def make_endless(pipe):
    """A function that says which process it is, and then neither reads nor writes."""
    def block(item):
        with open(pipe, "w") as out:
            out.write(f"{os.getpid()}\n")
        signal.pause()
    return block


PARENT = """
import functools, sys
from spanbert_jax.corpus.processes import map_in_processes
from tests.corpus.test_processes import make_endless
list(map_in_processes(functools.partial(make_endless, sys.argv[1]), [1], 1))
"""


def test_a_busy_worker_ends_with_a_killed_parent(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path / "pipe")])
    worker = os.pidfd_open(int((tmp_path / "pipe").read_text()))
    parent.kill()
    parent.wait()
    assert select.select([worker], [], [], 20)[0], "the worker lives on"
    os.close(worker)
