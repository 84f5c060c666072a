"""A file of the newest checkpoint is damaged: the run falls back a checkpoint and ends the same.

`tests/checkpoints` damages every file in every way.
"""
import os
import pathlib
import shutil

import pytest

from tests.runs import assert_same_run, run_here


def flip_a_bit(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1 << 3
    path.write_bytes(content)


def truncate(path: pathlib.Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3)


@pytest.mark.parametrize("damage,file", [
    (flip_a_bit, "state/d/*"), (truncate, "state/ocdbt.process_0/manifest.ocdbt"), (os.unlink, "about/metadata")],
                         ids=["flip_a_bit", "truncate", "unlink"])
def test_a_damaged_checkpoint_is_quarantined_and_the_run_ends_the_same(files, unbroken, tmp_path, damage, file):
    workdir = tmp_path / "run"
    shutil.copytree(unbroken, workdir)
    path = max((workdir / "checkpoints/20").glob(file), key=lambda path: path.stat().st_size)
    damage(path)
    output = run_here(files, workdir)
    assert_same_run(workdir, unbroken)
    assert (workdir / "checkpoints" / "20.unsound").is_dir()
    reason = (workdir / "checkpoints" / "20.unsound.txt").read_text().strip()
    assert reason.startswith(path.relative_to(workdir / "checkpoints/20").as_posix()) and reason in output
