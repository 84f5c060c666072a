"""Every change in the files of a step after the save is detected and named."""
import binascii
import json
import os

import numpy as np
import pytest

from spanbert_jax.checkpoints.manifest import read_manifest, verify, write_manifest
from tests.damage import flip_bit

STEP = 40
FILES = {"about/metadata": 30, "state/d/large": 3 * 2 ** 20 + 5, "state/empty": 0, "state/manifest.ocdbt": 111,
         "top": 1}


@pytest.fixture
def step(tmp_path):
    """A folder of random files and its manifest."""
    folder, random = tmp_path / str(STEP), np.random.default_rng(0)
    for name, size in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(random.bytes(size))
    write_manifest(tmp_path / "integrity-40.json", folder, STEP, keep=2, keep_every=1000)
    return folder, tmp_path / "integrity-40.json"


def rewrite(path, **fields) -> None:
    """Changes fields of a manifest and updates its checksum, like someone who knows the format."""
    body = json.loads(path.read_text())["body"] | fields
    checksum = binascii.crc32(json.dumps(body, sort_keys=True).encode())
    path.write_text(json.dumps({"body": body, "crc32": checksum}, indent=1, sort_keys=True) + "\n")


def test_manifest_has_sizes_checksums_and_retention_policy(step):
    folder, path = step
    manifest = read_manifest(path, STEP)
    assert (manifest.step, manifest.keep, manifest.keep_every) == (STEP, 2, 1000)
    assert abs(manifest.saved_at - os.stat(path).st_mtime) <= 2
    assert manifest.files == {
        name: (size, binascii.crc32((folder / name).read_bytes())) for name, size in FILES.items()}
    assert [entry.name for entry in folder.parent.iterdir() if entry not in step] == []  # no temporary file stays
    assert verify(folder, path, STEP) is None and verify(folder, path, STEP, full=False) is None


def test_a_flipped_bit_in_any_file_is_detected(step):
    folder, path = step
    for name, size in FILES.items():
        if size:
            for bit in (0, 8 * size - 1, 8 * (size // 2) + 3):
                flip_bit(folder / name, bit)
                assert verify(folder, path, STEP) == f"{name}: contents differ"
                assert verify(folder, path, STEP, full=False) is None  # only sizes are compared
                flip_bit(folder / name, bit)
    assert verify(folder, path, STEP) is None


@pytest.mark.parametrize("full", [False, True])
def test_another_size_and_a_missing_file_are_detected(step, full):
    folder, path = step
    for name, size in FILES.items():
        content = (folder / name).read_bytes()
        for other in {0, size - 1, size + 1} - {size, -1}:
            (folder / name).write_bytes(content[:other].ljust(other, b"x"))
            assert verify(folder, path, STEP, full=full) == f"{name}: size {other} where {size} was written"
        (folder / name).unlink()
        assert verify(folder, path, STEP, full=full) == f"{name}: missing"
        (folder / name).write_bytes(content)
    assert verify(folder, path, STEP, full=full) is None


def test_the_first_of_several_changed_files_is_named(step):
    folder, path = step
    flip_bit(folder / "state/manifest.ocdbt", 5)
    flip_bit(folder / "state/d/large", 5)
    assert verify(folder, path, STEP) == "state/d/large: contents differ"


def test_any_flipped_bit_in_the_manifest_is_detected(step):
    folder, path = step
    for bit in range(8 * path.stat().st_size):
        flip_bit(path, bit)
        assert verify(folder, path, STEP, full=False) == "integrity-40.json: contents differ", bit
        flip_bit(path, bit)
    assert verify(folder, path, STEP) is None


def test_a_truncated_missing_or_other_manifest_is_detected(step):
    folder, path = step
    text = path.read_bytes()
    for length in range(len(text)):
        path.write_bytes(text[:length])
        assert verify(folder, path, STEP, full=False) == "integrity-40.json: contents differ", length
    path.unlink()
    assert verify(folder, path, STEP) == "integrity-40.json: missing"
    path.mkdir()
    assert verify(folder, path, STEP) == "integrity-40.json: cannot be read: Is a directory"
    path.rmdir()
    path.write_bytes(text)
    rewrite(path, step=41)
    assert verify(folder, path, STEP) == "integrity-40.json: is of step 41"


def test_a_missing_step_is_invalid(step):
    folder, path = step
    assert "cannot be read: No such file" in verify(folder.parent / "41", path, STEP)


@pytest.mark.parametrize("fields", [
    {"files": []}, {"files": {"top": 1}}, {"files": {"top": [1]}}, {"files": {"top": [1, -5]}},
    {"files": {"top": [True, 1]}}, {"files": {"top": [1.0, 1]}}, {"step": "40"}, {"keep": None}, {"more": 1}])
def test_a_manifest_with_other_types_is_refused(step, fields):
    folder, path = step
    rewrite(path, **fields)
    assert verify(folder, path, STEP) == "integrity-40.json: was not written by this program"


@pytest.mark.parametrize("text", ["[]", "1", "null", '{"body": 1}', "[" * 200_000, "\ufeff{}"])
def test_other_json_is_refused(step, text):
    folder, path = step
    path.write_text(text)
    assert verify(folder, path, STEP) == "integrity-40.json: contents differ"


def test_files_not_in_the_manifest_are_ignored(step):
    folder, path = step
    (folder / "more").write_bytes(b"x")
    os.mkfifo(folder / "pipe")  # opening it would wait forever
    assert verify(folder, path, STEP) is None


@pytest.mark.parametrize("name", ["../secret", "{outside}", "link", "folder/secret", "pipe"])
def test_nothing_outside_the_step_is_opened(step, tmp_path, name):
    folder, path = step
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to(secret)
    (folder / "folder").symlink_to(tmp_path)
    name = name.format(outside=secret)
    rewrite(path, files={name: [6, binascii.crc32(b"secret")]})
    assert verify(folder, path, STEP) == f"{name}: missing"


def test_progress_adds_up(step):
    read = []
    verify(*step, STEP, on_bytes=read.append)
    assert sum(read) == sum(FILES.values())
