"""A disk that fills while a run saves: the run reports it, continues, and saves again once there is room."""
import os
import pathlib
import threading
from collections.abc import Callable
from typing import Any

import pytest

from spanbert_jax.cluster.exit_codes import NOT_WRITTEN
from spanbert_jax.commands.main import main
from spanbert_jax.finetuning import run as finetuning
from spanbert_jax.inference.model_folder import load_model
from tests.disks import fill, small_disk
from tests.runs import Process, assert_same_run, run_here
from tests.tasks.small import texts, write

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


TASK = """
from tests.tasks.small import small_config

def get_config():
    config = small_config("text_classification", {start!r}, {train!r}, dev_fraction=0.2)
    config.train.duration, config.evaluation.every = "4 steps", "2 steps"
    config.evaluation.batch_size = config.train.batch_size = 8
    return config
"""


def test_a_disk_that_fills_after_the_last_step_is_one_line_and_the_same_command_finishes(
        start, disk, tmp_path, capsys, monkeypatch, one_device):
    (tmp_path / "config.py").write_text(TASK.format(start=start, train=write(tmp_path / "train.jsonl", texts(60))))
    command = ["train", f"--config={tmp_path / 'config.py'}", f"--workdir={disk / 'run'}"]
    for function in ("prediction_files", "save_model"):  # of the files after the last checkpoint
        with monkeypatch.context() as patch:
            patch.setattr(finetuning, function, filling(disk, getattr(finetuning, function)))
            assert main(command) == NOT_WRITTEN
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith("spanbert-jax train: ") and "no space left" in line.lower()
        (disk / "filler").unlink()
    assert main(command) == 0
    assert (disk / "run" / "results.json").is_file() and load_model(disk / "run")


def filling(disk: pathlib.Path, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, before each call of which the disk fills."""
    def fill_and_call(*arguments: Any) -> Any:
        fill(disk)
        return function(*arguments)

    return fill_and_call
