"""The lock of a workdir: on one machine by the kernel, between machines by signs of life."""
import contextlib
import errno
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
from spanbert_jax.cluster.lock import LOCK_FILE, lock_workdir
from spanbert_jax.common.errors import UserError

ELSEWHERE = {"host": "node7", "machine": "another boot", "pid": 4711, "since": "2024-05-01T10:00:00+00:00"}


def leave_lock(workdir, holder=ELSEWHERE, age=0.0):
    """Leaves what a dead run of another machine leaves: its file, but no lock of this kernel."""
    file = workdir / LOCK_FILE
    file.write_bytes(holder if isinstance(holder, bytes) else json.dumps(holder).encode())
    os.utime(file, (time.time() - age,) * 2)


@contextlib.contextmanager
def touched(file, change=os.utime):
    """Touches or changes the file as another machine would, once it is being watched. Yields a `log` function."""
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


def test_one_run_at_a_time_and_free_afterwards(tmp_path):
    workdir = tmp_path / "runs" / "one"
    with lock_workdir(workdir):
        holder = json.loads((workdir / LOCK_FILE).read_text())
        assert holder["pid"] == os.getpid()
        with pytest.raises(UserError) as caught, lock_workdir(workdir):
            pass
        line = one_line(caught)
        assert str(workdir) in line and f"process {os.getpid()} on {holder['host']}, since {holder['since']}" in line
        assert json.loads((workdir / LOCK_FILE).read_text()) == holder
    assert (workdir / LOCK_FILE).read_bytes() == b""
    with pytest.raises(KeyError), lock_workdir(workdir):
        raise KeyError
    with lock_workdir(workdir):
        pass


HOLDER = """
import sys
from spanbert_jax.cluster.lock import lock_workdir
with lock_workdir(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_killed_run_on_this_machine_causes_no_wait(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=f"process {process.pid} "), lock_workdir(tmp_path):
        pass
    process.send_signal(signal.SIGSTOP)  # shows no sign of life, but still exists
    with pytest.raises(UserError, match=f"process {process.pid} "), lock_workdir(tmp_path, watch_seconds=0.1):
        pass
    process.kill()
    process.communicate()
    assert (tmp_path / LOCK_FILE).read_bytes()
    with lock_workdir(tmp_path, log=pytest.fail):
        pass


def test_a_dead_lock_of_another_machine_is_watched_and_taken_over(tmp_path):
    leave_lock(tmp_path)
    lines = []
    with lock_workdir(tmp_path, log=lines.append, watch_seconds=0.2):
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()
    assert len(lines) == 2 and "waiting 0.2 s" in lines[0] and "process 4711 on node7" in lines[0]
    assert "taken over from process 4711 on node7" in lines[1] and str(tmp_path) in lines[1]


def test_a_stale_lock_is_taken_over_at_once(tmp_path):
    leave_lock(tmp_path, age=7200)
    lines = []
    with lock_workdir(tmp_path, log=lines.append, watch_seconds=1e6):
        pass
    assert len(lines) == 1 and "taken over" in lines[0]


def test_a_live_lock_of_another_machine_is_respected(tmp_path):
    leave_lock(tmp_path)
    content = (tmp_path / LOCK_FILE).read_bytes()
    with touched(tmp_path / LOCK_FILE) as log, pytest.raises(UserError) as caught:
        with lock_workdir(tmp_path, log=log, watch_seconds=20):
            pass
    assert "process 4711 on node7, since 2024-05-01" in one_line(caught)
    assert (tmp_path / LOCK_FILE).read_bytes() == content


def test_a_run_that_ends_while_watched_frees_the_workdir(tmp_path):
    leave_lock(tmp_path)
    with touched(tmp_path / LOCK_FILE, lambda file: os.truncate(file, 0)) as log, lock_workdir(tmp_path, log,
                                                                                               watch_seconds=20):
        pass


def test_machines_with_the_same_host_name_are_distinguished(tmp_path):
    leave_lock(tmp_path, {**ELSEWHERE, "host": lock.socket.gethostname()})
    lines = []
    with lock_workdir(tmp_path, log=lines.append, watch_seconds=0.1):
        assert "taken over" in lines[-1]


@pytest.mark.parametrize("content", [b'{"host": "no', b"[1]", b"\xff\x00\x80", b"null"])
def test_an_incomplete_lock_file_is_watched_too(content, tmp_path):
    leave_lock(tmp_path, content)
    lines = []
    with lock_workdir(tmp_path, log=lines.append, watch_seconds=0.1):
        assert "process ? on ?" in lines[0] and "taken over" in lines[1]


def test_without_kernel_locks_touches_decide(tmp_path, monkeypatch):
    def unsupported(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with lock_workdir(tmp_path, touch_seconds=0.01):
        with pytest.raises(UserError, match=f"process {os.getpid()} "), lock_workdir(tmp_path, lambda text: None,
                                                                             watch_seconds=20):
            pass
    with lock_workdir(tmp_path, log=pytest.fail):
        pass


def test_the_file_is_touched_even_after_its_folder_was_renamed(tmp_path):
    workdir = tmp_path / "run"
    with lock_workdir(workdir, touch_seconds=0.01):
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
    with lock_workdir(tmp_path, touch_seconds=0.001):
        assert all(touches.acquire(timeout=20) for _ in range(3))


def test_a_run_leaves_a_lock_that_was_taken_over_unchanged(tmp_path):
    with lock_workdir(tmp_path):
        leave_lock(tmp_path)
    assert json.loads((tmp_path / LOCK_FILE).read_text()) == ELSEWHERE


def test_an_unusable_workdir_is_an_error_and_stays_unchanged(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    (tmp_path / "odd" / LOCK_FILE / "inner").mkdir(parents=True)
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / LOCK_FILE)
    for workdir, words in [(file, "is a file"), (file / "below", "is a file"), (tmp_path / "odd", "not a regular file"),
                           (tmp_path / "pipe", "not a regular file"),
                           (pathlib.Path("/proc/none/run"), "cannot be written")]:
        with pytest.raises(UserError) as caught, lock_workdir(workdir):
            pass
        assert words in one_line(caught) and str(workdir) in one_line(caught)
    assert file.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        LOCK_FILE, LOCK_FILE, "file", "inner", "odd", "pipe"]
