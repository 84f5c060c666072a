"""The lock of a workdir: one run at a time, on one machine by the kernel, between machines by signs of life."""
import contextlib
import fcntl
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from spanbert_jax.cluster import lock
from spanbert_jax.cluster.lock import LOCK_FILE, hold
from spanbert_jax.common.errors import UserError

ELSEWHERE = {"host": "node7", "machine": "another boot", "pid": 4711, "since": "2024-05-01T10:00:00+00:00"}


def leave(workdir, holder=ELSEWHERE, age=0.0):
    """What a run on another machine, which died, leaves behind: its file, and no lock of this kernel."""
    file = workdir / LOCK_FILE
    file.write_bytes(holder if isinstance(holder, bytes) else json.dumps(holder).encode())
    os.utime(file, (time.time() - age,) * 2)


@contextlib.contextmanager
def touched(file, change=os.utime):
    """Another machine's sign of life, once the file is being watched."""
    watched = threading.Event()

    def live():
        watched.wait(timeout=20)
        change(file)

    thread = threading.Thread(target=live)
    thread.start()
    yield lambda text: watched.set()
    thread.join()


def one_line(error):
    return "\n" not in str(error.value) and str(error.value)


def test_one_at_a_time_and_free_again(tmp_path):
    workdir = tmp_path / "runs" / "one"
    with hold(workdir):
        holder = json.loads((workdir / LOCK_FILE).read_text())
        assert holder["pid"] == os.getpid()
        with pytest.raises(UserError) as caught, hold(workdir):
            pass
        line = one_line(caught)
        assert str(workdir) in line and f"process {os.getpid()} on {holder['host']}, since {holder['since']}" in line
        assert json.loads((workdir / LOCK_FILE).read_text()) == holder
    assert (workdir / LOCK_FILE).read_bytes() == b""
    with pytest.raises(KeyError), hold(workdir):
        raise KeyError
    with hold(workdir):
        pass


HOLDER = """
import sys
from spanbert_jax.cluster.lock import hold
with hold(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_killed_holder_on_this_machine_keeps_nobody_waiting(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=f"process {process.pid} "), hold(tmp_path):
        pass
    process.send_signal(signal.SIGSTOP)  # gives no sign of life, but is there
    with pytest.raises(UserError, match=f"process {process.pid} "), hold(tmp_path, watch_seconds=0.1):
        pass
    process.kill()
    process.communicate()
    assert (tmp_path / LOCK_FILE).read_bytes()
    with hold(tmp_path, log=pytest.fail):
        pass


def test_a_dead_lock_of_another_machine_is_watched_and_taken_over(tmp_path):
    leave(tmp_path)
    said = []
    with hold(tmp_path, log=said.append, watch_seconds=0.2):
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()
    assert len(said) == 2 and "waiting 0.2 s" in said[0] and "process 4711 on node7" in said[0]
    assert "taken over from process 4711 on node7" in said[1] and str(tmp_path) in said[1]


def test_one_that_nobody_touched_for_long_is_taken_over_at_once(tmp_path):
    leave(tmp_path, age=7200)
    said = []
    with hold(tmp_path, log=said.append, watch_seconds=1e6):
        pass
    assert len(said) == 1 and "taken over" in said[0]


def test_a_living_lock_of_another_machine_is_believed(tmp_path):
    leave(tmp_path)
    content = (tmp_path / LOCK_FILE).read_bytes()
    with touched(tmp_path / LOCK_FILE) as log, pytest.raises(UserError) as caught:
        with hold(tmp_path, log=log, watch_seconds=20):
            pass
    assert "process 4711 on node7, since 2024-05-01" in one_line(caught)
    assert (tmp_path / LOCK_FILE).read_bytes() == content


def test_who_ends_while_being_watched_makes_way(tmp_path):
    leave(tmp_path)
    with touched(tmp_path / LOCK_FILE, lambda file: os.truncate(file, 0)) as log, hold(tmp_path, log, watch_seconds=20):
        pass


def test_another_machine_of_the_same_name_is_another_machine(tmp_path):
    leave(tmp_path, {**ELSEWHERE, "host": lock.socket.gethostname()})
    said = []
    with hold(tmp_path, log=said.append, watch_seconds=0.1):
        assert "taken over" in said[-1]


@pytest.mark.parametrize("content", [b'{"host": "no', b"[1]", b"\xff\x00\x80", b"null"])
def test_a_lock_file_that_was_half_written_is_watched_too(content, tmp_path):
    leave(tmp_path, content)
    said = []
    with hold(tmp_path, log=said.append, watch_seconds=0.1):
        assert "process ? on ?" in said[0] and "taken over" in said[1]


def test_without_kernel_locks_the_touches_decide(tmp_path, monkeypatch):
    def unsupported(file, operation):
        raise OSError(lock.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with hold(tmp_path, touch_seconds=0.01):
        with pytest.raises(UserError, match=f"process {os.getpid()} "), hold(tmp_path, lambda text: None,
                                                                             watch_seconds=20):
            pass
    with hold(tmp_path, log=pytest.fail):
        pass


def test_the_holder_touches_the_file_whatever_befalls_its_folder(tmp_path):
    workdir = tmp_path / "run"
    with hold(workdir, touch_seconds=0.01):
        workdir.rename(tmp_path / "moved")
        file = tmp_path / "moved" / LOCK_FILE
        os.utime(file, (1, 1))
        deadline = time.monotonic() + 20
        while file.stat().st_mtime < 2:
            assert time.monotonic() < deadline
        file.unlink()
    assert not workdir.exists()


def test_a_failing_touch_ends_neither_thread_nor_run(tmp_path, monkeypatch):
    touches = threading.Semaphore(0)

    def failing(file):
        touches.release()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "utime", failing)
    with hold(tmp_path, touch_seconds=0.001):
        assert all(touches.acquire(timeout=20) for _ in range(3))


def test_who_was_taken_over_leaves_the_file_to_the_other(tmp_path):
    with hold(tmp_path):
        leave(tmp_path)
    assert json.loads((tmp_path / LOCK_FILE).read_text()) == ELSEWHERE


def test_what_is_no_workdir_is_told_and_left_alone(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    (tmp_path / "odd" / LOCK_FILE / "inner").mkdir(parents=True)
    for workdir, words in [(file, "is a file"), (file / "below", "is a file"), (tmp_path / "odd", "is a directory"),
                           (pathlib.Path("/proc/none/run"), "cannot be written")]:
        with pytest.raises(UserError) as caught, hold(workdir):
            pass
        assert words in one_line(caught) and str(workdir) in one_line(caught)
    assert file.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.rglob("*")) == [LOCK_FILE, "file", "inner", "odd"]
