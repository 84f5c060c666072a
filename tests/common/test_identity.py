"""Files are identified by their content, not by name, size or times."""
import os

from spanbert_jax.common import identity
from spanbert_jax.common.identity import content_digest, file_stamp


def test_equal_content_has_equal_digests(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"positive\n" * 1000)
    os.utime(tmp_path / "b", (1, 1))
    assert content_digest(tmp_path / "a") == content_digest(tmp_path / "b")
    (tmp_path / "b").write_bytes(b"positive\n" * 999 + b"negative\n")
    assert content_digest(tmp_path / "a") != content_digest(tmp_path / "b")


def test_a_change_under_the_same_size_and_time_is_noticed_and_a_file_is_read_once(tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "_SETTLED_SECONDS", 0.0)
    file, found = tmp_path / "labels", []
    for content in (b"0 1", b"1 0", b"1 1"):
        file.write_bytes(content)
        os.utime(file, (1, 1))
        found.append(content_digest(file))
    assert len(set(found)) == 3
    monkeypatch.setattr(identity.hashlib, "file_digest", None)
    assert content_digest(file) == found[2]


def test_what_has_just_changed_has_no_stamp(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"1")
    assert file_stamp(tmp_path / "file") is None
    now = identity.time.time()
    monkeypatch.setattr(identity.time, "time", lambda: now + 3)
    assert file_stamp(tmp_path / "file")[2] == 1
    assert file_stamp(tmp_path) is None and file_stamp(tmp_path / "none") is None
