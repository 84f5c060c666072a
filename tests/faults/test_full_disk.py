"""A disk that fills while a run saves: the run reports it, continues, and saves again once there is room."""
import os
import pathlib
import threading

import pytest

from spanbert_jax.cluster.exit_codes import NOT_WRITTEN
from tests.disks import fill, small_disk
from tests.runs import Process, assert_same_run, run_here

OFTEN = "--config.checkpoint.every=3 steps"  # enough saves after the disk is full


@pytest.fixture
def disk(tmp_path):
    """A file system with room for a few checkpoints."""
    with small_disk(tmp_path / "disk", "48m") as folder:
        yield folder


class Ballast:
    """Fills a file system from the moment a checkpoint is written to it; a context manager."""

    def __init__(self, disk: pathlib.Path):
        self._disk, self._checkpoints = disk, disk / "run" / "checkpoints"
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._fill)

    def __enter__(self) -> "Ballast":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._end.set()
        self._thread.join()

    def _fill(self) -> None:
        while not self._end.is_set() and not list(self._checkpoints.glob("*.saving*")):
            pass
        filler = fill(self._disk)
        while not self._end.wait(0.01):
            fill(self._disk)  # the space that the failed save has freed
        filler.unlink()


def test_a_run_continues_and_saves_when_there_is_room_again(files, unbroken, disk):
    with Process(files, disk / "run", "--config.checkpoint.tries=100", OFTEN) as process:
        process.until("step 7/")
        with Ballast(disk):
            process.until("SAVE FAILED")
        assert process.wait() == 0, process.output
    assert_same_run(disk / "run", unbroken)


def test_a_run_stops_after_several_failed_saves_and_older_checkpoints_stay(files, unbroken, disk):
    with Process(files, disk / "run", OFTEN) as process:
        process.until("step 7/")
        with Ballast(disk):
            assert process.wait() == NOT_WRITTEN, process.output
        steps = sorted(int(path.name) for path in (disk / "run" / "checkpoints").iterdir() if path.name.isdigit())
        assert steps and steps[-1] <= 10
    run_here(files, disk / "run")
    assert_same_run(disk / "run", unbroken)


def test_a_run_does_not_start_without_room_for_its_checkpoints(files, disk):
    room = os.statvfs(disk)
    (disk / "ballast").write_bytes(bytes(room.f_bavail * room.f_frsize - (4 << 20)))
    output = run_here(files, disk / "run", status=2)
    assert "GB" in output.splitlines()[-1] or "MB" in output.splitlines()[-1]
