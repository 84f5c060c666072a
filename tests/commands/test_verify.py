"""`spanbert-jax verify` finds everything with checksums below a path, and names what is damaged."""
import json
import os
import pathlib
import shutil

import pytest

import spanbert_jax
from spanbert_jax.commands.main import main
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.manifest import seal_folder
from spanbert_jax.inference.partial import open_partial
from tests.damage import flip_bit


@pytest.fixture
def run(unbroken, files, tmp_path) -> pathlib.Path:
    """A workdir with checkpoints, a corpus, a model and an incomplete output."""
    workdir = tmp_path / "run"
    shutil.copytree(unbroken / "checkpoints", workdir / "checkpoints")
    shutil.copytree(files.corpus, workdir / "data")
    (workdir / "model").mkdir()
    for name in ("config.json", "model.safetensors", "README.md"):
        (workdir / "model" / name).write_bytes(os.urandom(100))
    seal_folder(workdir / "model")
    with open_partial(workdir / "out.jsonl", {}, []) as partial:
        partial.append("{}\n")
    (workdir / "notes.txt").write_text("mine")
    return workdir


def verified(capsys, *paths, status: int = 0) -> dict[str, str | None]:
    assert main(["verify", *map(str, paths), "--json"]) == status
    return {result["path"]: result["unsound"] for result in json.loads(capsys.readouterr().out)}


def test_everything_is_found_and_damage_is_named(run, capsys):
    parts = ["checkpoints/10", "checkpoints/20", "data", "model", "out.jsonl.partial"]
    assert verified(capsys, run) == {f"{run}/{part}": None for part in parts}
    for part in parts:
        assert verified(capsys, run / part) == {f"{run}/{part}": None}
    (run / "model/README.md").write_text("mine")
    damaged = {}
    for part, file in (("checkpoints/20", "about/metadata"), ("data", "unigram.npy"), ("model", "model.safetensors")):
        flip_bit(run / part / file, 8 * (run / part / file).stat().st_size - 3)
        damaged[f"{run}/{part}"] = file
    flip_bit(run / "out.jsonl.partial", 3)
    damaged[f"{run}/out.jsonl.partial"] = "out.jsonl.partial"
    found = verified(capsys, run, status=1)
    assert found.pop(f"{run}/checkpoints/10") is None and found.keys() == damaged.keys()
    for path, file in damaged.items():
        assert f"{file}: " in found[path], path
    assert main(["verify", str(run)]) == 1
    told = capsys.readouterr()
    assert "model.safetensors: contents differ" in " ".join(told.out.split()) and "B/s" in told.err


def test_every_row_of_a_corpus_is_read(run):
    shard, = (run / "data").glob("*train*array_record*")
    assert shard.stat().st_size > 67_000  # opening a corpus compares its first 64 KiB
    flip_bit(shard, 8 * 66_000)
    (result,) = spanbert_jax.verify(run / "data")
    assert shard.name in result["unsound"] and "cannot be read" in result["unsound"]


def test_what_has_no_checksums_is_an_error(run, tmp_path):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", run / "notes.txt"):
        with pytest.raises(UserError, match=f"{path}: nothing here has checksums; give a workdir"):
            spanbert_jax.verify(path)
    with pytest.raises(UserError, match="none: no such file or directory"):
        spanbert_jax.verify(tmp_path / "none")
