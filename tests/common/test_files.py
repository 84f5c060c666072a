"""Files appear whole, follow no links, replace nothing of others, and have the user's modes; caches without a home."""
import errno
import json
import os
import stat

import pytest

from spanbert_jax.common import files
from spanbert_jax.common.files import cache_folder, publish, temporary_file, usual_mode, write_text


def test_a_link_is_replaced_and_its_target_stays(tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "config.json").symlink_to("precious")
    write_text(tmp_path / "config.json", "{}", sync=True)
    assert (tmp_path / "config.json").read_text() == "{}" and not (tmp_path / "config.json").is_symlink()
    assert (tmp_path / "precious").read_text() == "mine" and len(os.listdir(tmp_path)) == 2


@pytest.mark.parametrize("planted", ["config.json.tmp", ".config.json.tmp", ".config.json.00000000.tmp"])
def test_files_with_names_like_temporary_ones_stay(planted, tmp_path):
    (tmp_path / planted).write_text("mine")
    write_text(tmp_path / "config.json", "{}")
    assert (tmp_path / planted).read_text() == "mine" and {*os.listdir(tmp_path)} == {planted, "config.json"}


def test_temporary_files_of_killed_processes_are_removed(tmp_path):
    names = {kind: f".a.json.{kind}{'0' * 7}.tmp" for kind in "12345"}
    (tmp_path / names["1"]).write_text("half")
    (tmp_path / names["2"]).write_text("being written")
    (tmp_path / names["3"]).mkdir()
    (tmp_path / names["4"]).symlink_to("precious")
    (tmp_path / "precious").write_text("mine")
    (tmp_path / f".b{names['5']}").write_text("of another file")
    for entry in os.scandir(tmp_path):
        if entry.name != names["2"]:
            os.utime(entry.path, (1e9, 1e9), follow_symlinks=False)
    write_text(tmp_path / "a.json", "{}")
    assert sorted(os.listdir(tmp_path)) == sorted([*(names[kind] for kind in "234"), f".b{names['5']}", "a.json",
                                                   "precious"])


def test_a_failed_write_keeps_the_file(tmp_path):
    write_text(tmp_path / "a.json", "old")
    with pytest.raises(KeyError), temporary_file(tmp_path / "a.json") as (_, file):
        file.write(b"half")
        raise KeyError
    assert (tmp_path / "a.json").read_text() == "old" and os.listdir(tmp_path) == ["a.json"]


def test_names_of_any_length_and_bytes(tmp_path):
    for name in ("é" * 127, "x" * 255, os.fsdecode(b"\xff" * 200)):
        write_text(tmp_path / name, json.dumps({"path": name}, ensure_ascii=False))
        assert json.loads((tmp_path / name).read_text(encoding="utf-8")) == {"path": name}


@pytest.mark.parametrize("links", [True, False])
def test_publishing_replaces_nothing(links, tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "done").write_text("ours")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "there").write_text("mine")
    for name in ("dangling", "there"):
        with pytest.raises(FileExistsError):
            publish(tmp_path / "done", tmp_path / name)
    publish(tmp_path / "done", tmp_path / "out")
    assert (tmp_path / "out").read_text() == "ours" and (tmp_path / "there").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["dangling", "out", "there"]


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_new_files_have_the_modes_of_the_umask(umask, tmp_path):
    before = os.umask(umask)
    try:
        write_text(tmp_path / "a", "")
        with usual_mode(tmp_path / "b") as path:
            os.unlink(path)
            os.close(os.open(path, os.O_CREAT, 0o600))
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o666 & ~umask}


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder of temporary files."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path / "tmp"))
    files._usable_cache.cache_clear()
    yield tmp_path / "tmp"
    files._usable_cache.cache_clear()


def test_the_cache_of_a_user_with_a_home(temporary, tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home/.cache/spanbert_jax" and not (tmp_path / "home").exists()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own/spanbert_jax" and not caplog.messages


def test_without_a_home_that_can_be_written_the_cache_is_temporary(temporary, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("in the way, also of root")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    own = temporary / f"spanbert_jax-{os.getuid()}"
    assert cache_folder() == cache_folder() == own and stat.S_IMODE(own.stat().st_mode) == 0o700
    line, = caplog.messages  # once
    assert str(tmp_path / "file") in line and str(own) in line and "\n" not in line
    files._usable_cache.cache_clear()
    assert cache_folder() == own  # the same for the next process


@pytest.mark.parametrize("kind", ["link", "file", "writable by others"])
def test_a_planted_folder_for_temporary_caches_is_not_used(kind, temporary, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    own = temporary / f"spanbert_jax-{os.getuid()}"
    if kind == "link":
        own.symlink_to(tmp_path)
    elif kind == "file":
        own.write_text("")
    else:
        own.mkdir()
        own.chmod(0o777)
    found = cache_folder()
    assert found != own and found.parent == temporary and stat.S_IMODE(found.stat().st_mode) == 0o700
