"""One file of each kind of the newest checkpoint is damaged: the run falls back a checkpoint and ends the same.

`tests/checkpoints` damages every file in every way.
"""
import itertools
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from tests.runs import ROOT, assert_same_run


def flip_a_bit(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1 << 3
    path.write_bytes(content)


def truncate(path: pathlib.Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3)


def one_of_each_kind(checkpoints: pathlib.Path, step: int) -> list[str]:
    """One file of each kind of a step, with its manifest. Names that differ only in numbers are one kind."""
    files = [path.relative_to(checkpoints).as_posix() for path in sorted((checkpoints / str(step)).rglob("*"))
             if path.is_file()]
    kinds = {re.sub(r"[0-9a-f]{16,}|\d+", "*", file): file for file in files}
    assert len(kinds) >= 8  # values, indexes, shapes, shardings, metadata
    return [*kinds.values(), f"integrity-{step}.json"]


@pytest.fixture(scope="module")
def damaged(files, unbroken, tmp_path_factory):
    """Runs resumed after one file was damaged: workdirs by (damage, file), and the output of all."""
    folder, workdirs = tmp_path_factory.mktemp("damaged"), {}
    damages = itertools.cycle((flip_a_bit, truncate, os.unlink))
    for file in one_of_each_kind(unbroken / "checkpoints", 60):
        # An empty file has nothing to flip or to cut off.
        damage = next(damages) if (unbroken / "checkpoints" / file).stat().st_size else os.unlink
        workdir = workdirs[damage.__name__, file] = folder / str(len(workdirs))
        shutil.copytree(unbroken, workdir)
        damage(workdir / "checkpoints" / file)
    processes = [subprocess.Popen(
        [sys.executable, "-m", "tests.faults.resume", files.folder / "config.py", files.corpus,
         *list(workdirs.values())[half::2]],
        env=files.environment(), cwd=ROOT, stderr=subprocess.PIPE, text=True) for half in (0, 1)]
    output = "".join([process.communicate()[1] for process in processes])
    assert [process.returncode for process in processes] == [0, 0], output
    return workdirs, output


@pytest.mark.parametrize("damage", ["flip_a_bit", "truncate", "unlink"])
def test_a_damaged_checkpoint_is_quarantined_and_the_run_ends_the_same(damaged, unbroken, damage):
    workdirs, output = damaged
    files = [file for done, file in workdirs if done == damage]
    assert len(files) >= 2
    for file in files:
        workdir = workdirs[damage, file]
        assert_same_run(workdir, unbroken)
        assert (workdir / "checkpoints" / "60.unsound").is_dir()
        reason = (workdir / "checkpoints" / "60.unsound.txt").read_text().strip()
        assert reason.startswith(file.removeprefix("60/")) and reason in output
