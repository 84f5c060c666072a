"""Directories appear whole; only marked ones of processes that are gone are removed, and no link is followed."""
import os
import socket
import stat
import subprocess
import sys

import pytest

from spanbert_jax.common import directories
from spanbert_jax.common.directories import (
    MARKER,
    make_own_directory,
    new_directory,
    partial_directory,
    remove_directory,
    replace_directory,
)
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.locks import LockHeld

# Fills a directory for a name, and is then killed.
KILLED = """
import os, pathlib, signal, sys
from spanbert_jax.common.directories import partial_directory, replace_directory
parent, name, moment = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
with partial_directory(parent, name) as new:
    (new / "half").write_text("")
    if moment == "replacing":
        (parent / name).rename(new.with_name("old"))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def kill(parent, name, moment="writing"):
    assert subprocess.run([sys.executable, "-c", KILLED, str(parent), name, moment]).returncode == -9
    work, = parent.glob(f".{name}.*.partial")
    return work


def fill(parent, name):
    with partial_directory(parent, name) as new:
        (new / "done").write_text("")
        replace_directory(new, parent / name)


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_what_a_killed_process_left_is_removed(tmp_path):
    kill(tmp_path, "out")
    fill(tmp_path, "out")
    assert tree(tmp_path) == ["out", "out/done"]


def test_what_a_process_was_replacing_when_it_was_killed_is_put_back(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "previous").write_text("")
    kill(tmp_path, "out", "replacing")
    assert not (tmp_path / "out").exists()
    with partial_directory(tmp_path, "out"):
        assert tree(tmp_path / "out") == ["previous"]
    assert tree(tmp_path) == ["out", "out/previous"]


@pytest.mark.parametrize("kind", ["a folder", "a link to a folder", "a marker that is a link", "a marker of a folder",
                                  "an empty marker", "of another machine", "of another name"])
def test_what_looks_like_unfinished_work_stays(kind, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis").write_text("mine")
    work = tmp_path / (".out2.0a1b2c3d.partial" if kind == "of another name" else ".out.0a1b2c3d.partial")
    host = "other" if kind == "of another machine" else socket.gethostname()
    (tmp_path / "marker").write_text(f"{host}\n")
    if kind == "a link to a folder":
        (tmp_path / "precious" / MARKER).write_text(f"{host}\n")
        work.symlink_to("precious")
    else:
        work.mkdir()
        (work / "thesis").write_text("mine")
    if kind == "a marker that is a link":
        (work / MARKER).symlink_to(tmp_path / "marker")
    elif kind == "a marker of a folder":
        (work / MARKER).mkdir()
    elif kind == "an empty marker":
        (work / MARKER).write_text("")
    elif "of another" in kind:
        (work / MARKER).write_text(f"{host}\n")
    before = tree(tmp_path)
    fill(tmp_path, "out")
    assert tree(tmp_path) == sorted([*before, "out", "out/done"])
    assert (tmp_path / "precious" / "thesis").read_text() == "mine"


def test_work_of_another_machine_is_removed_after_a_week(tmp_path, monkeypatch):
    work = kill(tmp_path, "out")
    monkeypatch.setattr(socket, "gethostname", lambda: "other")
    fill(tmp_path, "out")
    assert work.exists()
    monkeypatch.setattr(directories, "_ABANDONED_SECONDS", -1.0)
    fill(tmp_path, "out")
    assert tree(tmp_path) == ["out", "out/done"]


def test_work_of_a_live_process_stays_and_may_exclude_others(tmp_path):
    with partial_directory(tmp_path, "out") as one:
        (one / "half").write_text("")
        with pytest.raises(LockHeld), partial_directory(tmp_path, "out", exclusive=True):
            pass
        with partial_directory(tmp_path, "out") as two, partial_directory(tmp_path, "other", exclusive=True):
            assert one != two
        assert (one / "half").exists()
    assert not tree(tmp_path)


def test_replacing_a_link_removes_only_the_link(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis").write_text("mine")
    (tmp_path / "out").symlink_to("precious")
    fill(tmp_path, "out")
    (tmp_path / "link").symlink_to("precious")
    remove_directory(tmp_path / "link")
    assert tree(tmp_path) == ["out", "out/done", "precious", "precious/thesis"] and not (tmp_path / "out").is_symlink()


@pytest.mark.parametrize("appears", ["file", "folder", "link", "file in the empty folder"])
def test_what_appears_meanwhile_is_not_overwritten(appears, tmp_path):
    out = tmp_path / "out"
    if "empty" in appears:
        out.mkdir()
    with pytest.raises(UserError, match="exists already and is not overwritten"), new_directory(out) as new:
        (new / "file").write_text("ours")
        if appears == "file":
            out.write_text("mine")
        elif appears == "link":
            out.symlink_to("nowhere")
        else:
            out.mkdir(exist_ok=True)
            (out / "file").write_text("mine")
    if appears != "link":
        assert (out / "file" if out.is_dir() else out).read_text() == "mine"
    assert len(tree(tmp_path)) == (2 if out.is_dir() else 1)


def test_an_empty_folder_in_which_a_process_was_killed_is_still_empty(tmp_path):
    (tmp_path / "out").mkdir()
    kill(tmp_path / "out", "out")
    with new_directory(tmp_path / "out") as new:
        (new / "file").write_text("")
    assert tree(tmp_path) == ["out", "out/file"]


@pytest.mark.parametrize("umask", [0o002, 0o077])
def test_the_umask_decides_modes(umask, tmp_path):
    before = os.umask(umask)
    try:
        fill(tmp_path, "out")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o777 & ~umask


def test_folders_of_a_run_are_no_links(tmp_path):
    make_own_directory(tmp_path / "a")
    make_own_directory(tmp_path / "a")
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "file").write_text("")
    for name, words in (("link", "is a link"), ("dangling", "is a link"), ("file", "is a file")):
        with pytest.raises(UserError, match=f"^[^\n]*{name}: {words}[^\n]*$"):
            make_own_directory(tmp_path / name)
    assert tree(tmp_path) == ["a", "dangling", "file", "link"]
