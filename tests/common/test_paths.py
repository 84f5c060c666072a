"""Paths as users write them."""
import io
import os
import pathlib
import re
import sys

import pytest

import spanbert_jax
from spanbert_jax.common.directories import new_directory, require_absent_or_empty
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.paths import Paths, join_paths, split_paths, stored_pipes, user_path, utf8_path, writable
from spanbert_jax.common.types import is_of_type
from spanbert_jax.tasks.files.reading import resolve_files
from spanbert_jax.training.config import load_values


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_home_directory_is_replaced(home):
    assert user_path("~") == home and user_path(pathlib.Path("~/runs/a")) == home / "runs" / "a"
    assert [str(user_path(name)) for name in ("a/~b", "~nobody_of_this_name/a", "/x", "a~")] == [
        "a/~b", "~nobody_of_this_name/a", "/x", "a~"]
    (home / "taken").write_text("x")
    with pytest.raises(UserError, match=f"{home}/taken: exists already"):
        require_absent_or_empty("~/taken")
    with new_directory("~/made") as folder:
        (folder / "a.jsonl").write_text("{}")
    assert resolve_files("~/made,~/m*/a.jsonl") == [f"{home}/made/a.jsonl"] * 2
    for call in (spanbert_jax.evaluate, load_values, spanbert_jax.list_checkpoints):
        with pytest.raises(UserError, match="no run here|no checkpoints here"):
            call("~/made")
    assert not (home / "~").exists()


def test_only_one_module_expands_paths():
    package = pathlib.Path(spanbert_jax.__file__).parent
    others = [path.name for path in package.rglob("*.py") if re.search(r"expanduser", path.read_text())]
    assert others == ["paths.py"]


def test_commas_separate_paths_and_belong_to_names_that_exist(home):
    for name in ("a.txt", "b.txt", "Paris, France.txt", "x,y,z.txt"):
        (home / name).write_text("")
    for paths, expected in (("a.txt,b.txt", ["a.txt", "b.txt"]), (" a.txt , b.txt,", ["a.txt", "b.txt"]),
                            ("Paris, France.txt", ["Paris, France.txt"]),
                            ("a.txt,Paris, France.txt,x,y,z.txt,b.txt",
                             ["a.txt", "Paris, France.txt", "x,y,z.txt", "b.txt"]),
                            ("x,y,*.txt", ["x,y,*.txt"]), ("~/b.txt,none,tfds:a", [f"{home}/b.txt", "none", "tfds:a"]),
                            ("-,a.txt", ["-", "a.txt"]), ("", [])):
        assert split_paths(paths) == expected


def test_lists_and_path_like_objects_are_joined(home):
    for paths, text in (("a,b", "a,b"), (pathlib.Path("a"), "a"), (["a", pathlib.Path("b/c")], "a,b/c"), ([], "")):
        assert is_of_type(Paths, paths) and join_paths(paths) == text
    assert not is_of_type(Paths, [1]) and not is_of_type(Paths, None)


def test_standard_input_and_pipes_are_stored(home, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff one\n")))
    (home / "x,y.txt").write_text("")
    end, start = os.pipe()
    os.write(start, b"two\n")
    os.close(start)
    with stored_pipes(f"x,y.txt,-,/dev/fd/{end}") as paths:
        plain, first, second = split_paths(paths)
        assert plain == "x,y.txt" and resolve_files(paths) == [plain, first, second]
        for _ in range(2):
            assert [pathlib.Path(path).read_bytes() for path in (first, second)] == [b"\xff one\n", b"two\n"]
    os.close(end)
    assert not os.path.exists(first)
    with pytest.raises(UserError, match="-,x,y.txt,-: standard input, -, can be read only once"):
        with stored_pipes("-,x,y.txt,-"):
            pass
    end, start = os.pipe()
    with pytest.raises(UserError, match="a pipe or a device, which cannot be read twice"):
        resolve_files(f"/dev/fd/{end}")
    os.close(end), os.close(start)


def test_standard_output(capsysbinary, home):
    with writable("-") as path:
        pathlib.Path(path).write_bytes(b"\xc3\xa9\n")
        assert not capsysbinary.readouterr().out
    assert capsysbinary.readouterr().out == b"\xc3\xa9\n" and not os.path.exists(path)
    with writable("a.txt") as path:
        assert path == "a.txt"


def test_a_closed_standard_input_is_an_error(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(UserError, match="-: standard input is closed; give a file, or a pipe"), stored_pipes("-"):
        pass


def test_names_that_are_not_utf8_are_refused_where_libraries_need_it(tmp_path):
    name = os.fsdecode(b"runs-\xff")
    assert utf8_path(tmp_path / "läufe") == tmp_path / "läufe"
    with pytest.raises(UserError, match=r"runs-\\udcff/a: a name in this path is not UTF-8") as caught:
        utf8_path(tmp_path / name / "a")
    str(caught.value).encode()
    for write in (lambda: spanbert_jax.prepare("python", tmp_path / name, vocab_size=500),
                  lambda: spanbert_jax.train(spanbert_jax.default_config(), tmp_path / name)):
        with pytest.raises(UserError, match="not UTF-8"):
            write()
    assert not list(tmp_path.iterdir())
