"""A folder with a manifest is used only if its files are those that were written."""
import os

import numpy as np
import pytest

from spanbert_jax.common import identity, manifest
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.manifest import MANIFEST_FILE, require_intact, seal_folder
from tests.damage import flip_bit

FILES = {"config.json": 300, "model.safetensors": 70_001, "target/tokenizer.json": 40, "README.md": 50}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model/target").mkdir(parents=True)
    for name, size in FILES.items():
        (tmp_path / "model" / name).write_bytes(np.random.default_rng(0).bytes(size))
    seal_folder(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("name", [*FILES, MANIFEST_FILE])
def test_a_flipped_bit_in_any_file_but_the_readme_is_an_error(folder, name):
    require_intact(folder)
    for bit in (0, 8 * (folder / name).stat().st_size - 1):
        flip_bit(folder / name, bit)
        if name == "README.md":
            require_intact(folder)
        else:
            with pytest.raises(UserError) as caught:
                require_intact(folder)
            assert str(caught.value) == (
                f"{folder}: {name}: contents differ: not what was written; fetch or make the folder again, or, if you "
                f"changed it on purpose, delete {MANIFEST_FILE} in it")
        flip_bit(folder / name, bit)
    require_intact(folder)


def test_further_files_are_no_error_and_missing_ones_are(folder):
    (folder / "notes.txt").write_text("mine")
    (folder / "README.md").unlink()
    require_intact(folder)
    (folder / "config.json").write_text("{}")
    with pytest.raises(UserError, match="config.json: size 2 where 300 was written: not what"):
        require_intact(folder)
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match="config.json: missing: not what"):
        require_intact(folder)
    (folder / MANIFEST_FILE).unlink()  # as the message says
    require_intact(folder)


def test_links_are_followed_but_names_in_a_manifest_lead_nowhere_else(folder, tmp_path):
    (folder / "model.safetensors").rename(tmp_path / "weights")
    (folder / "model.safetensors").symlink_to(tmp_path / "weights")
    require_intact(folder)
    os.mkfifo(folder / "pipe")  # opening it would wait forever
    for name in ("../weights", f"{tmp_path}/weights", "pipe"):
        manifest.write_manifest(folder / MANIFEST_FILE, {}, {name: manifest.measure(tmp_path, ["weights"])["weights"]})
        with pytest.raises(UserError, match="missing: not what"):
            require_intact(folder)


def test_a_folder_is_read_once_until_it_changes(folder, monkeypatch):
    reads = []
    monkeypatch.setattr(manifest, "folder_difference", lambda folder: reads.append(folder))
    require_intact(folder)
    require_intact(folder)
    assert len(reads) == 2  # it has just been written: a further change might leave its times
    monkeypatch.setattr(identity, "_SETTLED_SECONDS", 0.0)
    require_intact(folder)
    require_intact(folder)
    assert len(reads) == 3
    status = os.stat(folder / "config.json")
    flip_bit(folder / "config.json", 5)
    os.utime(folder / "config.json", ns=(status.st_atime_ns, status.st_mtime_ns))
    require_intact(folder)
    assert len(reads) == 4
