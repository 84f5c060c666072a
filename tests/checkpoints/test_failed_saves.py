"""A failed save is logged, counted and survived; earlier checkpoints stay."""
import asyncio
import contextlib
import os
import pathlib
import queue
import re
import resource
import shutil
import subprocess
import sys
import types

import pytest

from spanbert_jax.checkpoints import Checkpointer, saving
from spanbert_jax.common.errors import RunFailed, SavesFailed, UserError
from tests.checkpoints.states import abstract_of, accept_any, assert_same_bits, make_state
from tests.disks import small_disk

LARGE = 2 ** 15  # rows of a state of 1.3 MB


def large(step: int):
    return make_state(step, rows=LARGE)


@contextlib.contextmanager
def no_large_files():
    """Limits files of this process to 100 kB, so that larger writes fail halfway."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def disk(tmp_path):
    """A file system of 8 MB."""
    with small_disk(tmp_path / "disk", "8m") as folder:
        yield folder


class Lines(queue.Queue):
    """Logged lines, to wait for."""

    def next(self) -> str:
        return self.get(timeout=60)


def assert_resumes(workdir, step: int, state) -> None:
    with Checkpointer(workdir) as checkpointer:
        found, restored = checkpointer.resume(abstract_of(state), accept_any)
    assert found == step
    assert_same_bits(restored, state)


def test_a_write_that_fails_in_the_background(tmp_path):
    lines = Lines()
    with Checkpointer(tmp_path, log=lines.put) as checkpointer:
        checkpointer.save(1, large(1), {})
        checkpointer.wait()
        with no_large_files():
            checkpointer.save(2, large(2), {})
            line = lines.next()  # logged without a call
        assert line.startswith("SAVE FAILED: step 2: File too large; 1 of at most 3 in a row")
        assert "step 1 is safe" in line
        with pytest.raises(SavesFailed, match=r"^step 2 could not be saved \(1 in a row failed\): File too large; "):
            checkpointer.wait()
        assert checkpointer.failures == 1 and checkpointer.steps() == [1]
        checkpointer.save(3, large(3), {})
        checkpointer.wait()  # the latest save succeeded
        assert checkpointer.failures == 1 and checkpointer.steps() == [3] and lines.empty()
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["3", "integrity-3.json"]
    assert_resumes(tmp_path, 3, large(3))


def test_results_of_a_failed_save_that_come_late_print_nothing(monkeypatch):
    printed, loop = [], asyncio.new_event_loop()
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: printed.append(unraisable.exc_value))
    saving._ignore_late_results.__wrapped__()
    loop.close()
    other = ValueError("of something else")
    with pytest.raises(RuntimeError) as late:
        loop.call_soon_threadsafe(print)  # as TensorStore does for each file
    for error in (late.value, other):
        sys.unraisablehook(types.SimpleNamespace(exc_value=error))
    assert printed == [other]


def test_too_many_consecutive_failures_end_the_run(tmp_path):
    lines = Lines()
    with Checkpointer(tmp_path, tries=2, log=lines.put) as checkpointer:
        checkpointer.save(1, large(1), {})
        checkpointer.wait()
        for step in (2, 4):  # a success resets the count
            with no_large_files():
                checkpointer.save(step, large(step), {})
                assert "1 of at most 2 in a row" in lines.next()
            checkpointer.save(step + 1, large(step + 1), {})
            checkpointer.wait()
        with no_large_files():
            checkpointer.save(6, large(6), {})
            checkpointer.save(7, large(7), {})
            with pytest.raises(SavesFailed, match=r"step 7 .* \(2 in a row failed\).*step 5 is safe") as caught:
                checkpointer.save(8, large(8), {})
        assert isinstance(caught.value, RunFailed) and "\n" not in str(caught.value)
        assert checkpointer.failures == 4 and checkpointer.steps() == [5]
    assert_resumes(tmp_path, 5, large(5))


def test_exit_waits_and_raises_nothing(tmp_path):
    lines = Lines()
    with no_large_files(), Checkpointer(tmp_path, log=lines.put) as checkpointer:
        checkpointer.save(1, large(1), {})
    assert "nothing is safe" in lines.get_nowait()
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, large(1), {})
    assert_resumes(tmp_path, 1, large(1))


def test_a_full_disk_that_gains_space(disk):
    lines, ballast = Lines(), disk / "ballast"
    with Checkpointer(disk, log=lines.put) as checkpointer:
        checkpointer.check_space(abstract_of(large(0)))
        checkpointer.save(1, large(1), {})
        checkpointer.wait()
        free = shutil.disk_usage(disk).free
        ballast.write_bytes(bytes(free - 1_000_000))
        for step in (2, 3):
            checkpointer.save(step, large(step), {})
            line = lines.next()
            assert f"step {step}: " in line and "step 1 is safe" in line
            assert re.search(r"\d\.\d+ MB are needed and \d+ kB are free", line)
        ballast.unlink()
        checkpointer.save(4, large(4), {})
        checkpointer.wait()
        assert checkpointer.failures == 2 and checkpointer.steps() == [4]
    assert_resumes(disk, 4, large(4))


def test_a_disk_that_fills_during_a_save(disk, monkeypatch):
    lines, ballast = Lines(), disk / "ballast"
    with Checkpointer(disk, log=lines.put) as checkpointer:
        checkpointer.save(1, large(1), {})
        checkpointer.wait()
        ballast.write_bytes(bytes(shutil.disk_usage(disk).free - 500_000))
        with monkeypatch.context() as patch:  # as if the space had been used up after the check
            patch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=2 ** 40))
            checkpointer.save(2, large(2), {})
            assert "step 2: No space left on device" in lines.next()
        ballast.unlink()
        checkpointer.save(3, large(3), {})
        checkpointer.wait()
    assert sorted(os.listdir(disk / "checkpoints")) == ["3", "integrity-3.json"]
    assert_resumes(disk, 3, large(3))


def test_a_disk_that_becomes_read_only(disk):
    lines = Lines()
    with Checkpointer(disk, log=lines.put) as checkpointer:
        checkpointer.save(1, large(1), {})
        checkpointer.wait()
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        checkpointer.save(2, large(2), {})
        line = lines.next()
        assert "step 2: Read-only file system" in line and "step 1 is safe" in line
        with pytest.raises(UserError, match="Read-only file system"):
            checkpointer.check_space(abstract_of(large(0)))
        with pytest.raises(SavesFailed):
            checkpointer.wait()
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        checkpointer.save(3, large(3), {})
        checkpointer.wait()
    assert_resumes(disk, 3, large(3))


def test_space_for_all_kept_steps_is_required_beforehand(disk):
    abstract = abstract_of(large(0))  # 1.3 MB of 8 MB
    with Checkpointer(disk, keep=4) as checkpointer:
        checkpointer.check_space(abstract)
    with Checkpointer(disk, keep=6) as checkpointer:
        with pytest.raises(UserError, match=r"MB are needed and .* MB are free; each checkpoint takes 1\.31 MB, and "
                                            r"config\.checkpoint\.keep=6 needs 7 more at a time"):
            checkpointer.check_space(abstract)
        for step in range(1, 4):  # steps stored already count
            checkpointer.save(step, large(step), {})
        checkpointer.wait()
        with pytest.raises(UserError, match="needs 4 more at a time"):
            checkpointer.check_space(abstract)


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(UserError, match="checkpoints: is a file where a folder is needed") as caught:
        Checkpointer(tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"checkpoints: cannot be written \(Not a directory\)"):
        Checkpointer(tmp_path / "checkpoints")
    assert (tmp_path / "checkpoints").read_text() == "a file"


def test_a_folder_replaced_by_a_file(tmp_path):
    lines, folder = Lines(), tmp_path / "checkpoints"
    with Checkpointer(tmp_path, log=lines.put) as checkpointer:
        checkpointer.save(1, large(1), {})
        checkpointer.wait()
        folder.rename(tmp_path / "elsewhere")
        folder.write_text("a file")
        checkpointer.save(2, large(2), {})
        line = lines.next()
        assert "is a file where a folder is needed" in line and "nothing is safe" in line
        folder.unlink()
        pathlib.Path(tmp_path / "elsewhere").rename(folder)
        checkpointer.save(3, large(3), {})
        checkpointer.wait()
        assert checkpointer.steps() == [3]


def test_a_folder_that_vanishes_is_created_again(tmp_path):
    lines = Lines()
    with Checkpointer(tmp_path, log=lines.put) as checkpointer:
        checkpointer.save(1, large(1), {})
        checkpointer.wait()
        shutil.rmtree(tmp_path / "checkpoints")
        checkpointer.save(2, large(2), {})
        checkpointer.wait()
        assert "has vanished" in lines.next() and checkpointer.failures == 0
    assert_resumes(tmp_path, 2, large(2))
