"""Protected standard streams: each fault, what the other stream gets, and errors of output that is required."""
import errno
import sys

import pytest

from spanbert_jax.common.streams import protected_streams
from tests.streams import FAULTS, run_with

SCRIPT = """
import os, sys
from spanbert_jax.common.errors import OutputLost
from spanbert_jax.common.streams import protected_streams, require_output, reserve_stdout
with protected_streams():
    opened = os.open("/", os.O_RDONLY)
    assert opened > 2
    try:
        {before}
        print("out \\u00e9\\udcff", flush=True)
        print("err \\u00e9", file=sys.stderr)
        sys.stdout.buffer.write(b"bytes")
        {after}
    except OutputLost as lost:
        sys.exit(lost.errno)
"""


def run(fault: str, before: str = "", after: str = "") -> tuple[int, str | None, str]:
    done = run_with(fault, [sys.executable, "-c", SCRIPT.format(before=before, after=after)])
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("fault", ["", *FAULTS])
def test_what_a_stream_does_not_take_is_dropped_and_the_other_one_goes_on(fault):
    letter = "\\xe9" if fault == "ASCII" else "é"
    out = None if fault == "reader left" else f"out {letter}\udcff\nbytes" * (not fault.startswith(("stdout", "both")))
    err = "" if fault.startswith(("stderr", "both")) else f"err {letter}\n"
    assert run(fault) == (0, out, err)


@pytest.mark.parametrize("fault,number", [
    ("stdout closed", errno.EBADF), ("stdout full", errno.ENOSPC), ("reader left", errno.EPIPE)])
def test_required_output_that_is_lost_is_an_error(fault, number):
    for before in ("require_output()", "reserve_stdout(); require_output()"):
        status, _, err = run(fault, before)
        assert (status, err) == (number, ""), "at the first failed write"
    status, _, err = run(fault, after="require_output()")
    assert (status, err) == (number, "err é\n"), "at the end"
    status, _, err = run(fault, before="require_output(); sys.exit(99)")
    assert status == (number if fault == "stdout closed" else 99), "what is closed is noticed before any write"


def test_a_reserved_stdout_is_left_to_python():
    script = 'reserve_stdout(); os.write(1, b"of a library\\n")'
    assert run("", before=script) == (0, "out é\udcff\nbytes", "err é\n")


def test_streams_that_are_not_those_of_the_process_stay(capsys):
    before = sys.stdout, sys.stderr
    with protected_streams():
        assert (sys.stdout, sys.stderr) == before
