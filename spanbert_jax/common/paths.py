"""Paths as users write them: `~`, globs, several separated by commas, standard input and pipes."""
import collections
import contextlib
import glob
import itertools
import os
import pathlib
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.streams import require_output

STANDARD_STREAM = "-"  # stands for standard input or output
Paths = str | os.PathLike | Sequence[str | os.PathLike]  # one, several separated by commas, or a list


def user_path(path: str | os.PathLike) -> pathlib.Path:
    """A path that a user gave, with `~` and `~name` at its start replaced by the home directory."""
    return pathlib.Path(os.path.expanduser(path))


def utf8_path(path: str | os.PathLike) -> pathlib.Path:
    """`user_path` for the libraries of corpora, checkpoints and weights. Raises UserError if it is not UTF-8."""
    found = user_path(path)
    try:
        str(found.absolute()).encode()
    except UnicodeEncodeError:
        shown = str(found).encode(errors="backslashreplace").decode()
        raise UserError(f"{shown}: a name in this path is not UTF-8, which the libraries that read and write there "
                        "need; rename it, or give another path") from None
    return found


def join_paths(paths: Paths) -> str:
    """One path or several as a text for `split_paths`."""
    return os.fspath(paths) if isinstance(paths, (str, os.PathLike)) else ",".join(os.fspath(path) for path in paths)


def split_paths(paths: str) -> list[str]:
    """The paths and globs separated by commas, with `~` replaced. What does not exist may continue after its comma."""
    words, found = paths.split(","), list[str]()
    while words:
        candidates = [os.path.expanduser(",".join(words[:count]).strip()) for count in range(1, len(words) + 1)]
        count, path = next(((count, path) for count, path in enumerate(candidates, 1)
                            if path and any(True for _ in matching_paths(path))), (1, candidates[0]))
        found.append(path)
        words = words[count:]
    return [path for path in found if path]


def matching_paths(pattern: str) -> Iterator[str]:
    """Yields the matches of a glob in any order, some perhaps twice, as `glob` does with `recursive`.

    Where `glob` follows links in circles, `**` enters each real directory once. Raises UserError if one is unreadable.
    """
    here = "" if pattern.startswith("/") else "./"
    for path in _matching_paths(here, pattern.split("/"), collections.defaultdict(set)):
        yield path.removeprefix(here)


def _matching_paths(top: str, parts: Sequence[str], visited: Mapping[int, set[str]]) -> Iterator[str]:
    """Yields the matches of the parts of a glob below `top`; `visited`: by the number of parts left, of `walk`."""
    if "**" not in parts:
        yield from glob.iglob(glob.escape(top) + "/".join(parts))
        return
    at = parts.index("**")
    rest = parts[at + 1:] or ["*"]
    for start in sorted(glob.glob(glob.escape(top) + "".join(f"{part}/" for part in parts[:at]))):
        if os.path.realpath(start) not in visited[len(rest)]:
            entries = walk(start, visited[len(rest)])
            for folder in itertools.chain([start], (f"{entry.path}/" for entry in entries if is_directory(entry))):
                yield from _matching_paths(folder, rest, visited)


def walk(directory: str, visited: set[str]) -> Iterator[os.DirEntry[str]]:
    """Yields what is below a directory in order, except hidden entries. Directories come before their entries.

    Symbolic links are followed, those to directories after all else.

    Args:
      visited: real paths of the directories read so far, which are not read again; this one is added.

    Raises:
      UserError: a directory cannot be read.
    """
    visited.add(os.path.realpath(directory))
    try:
        with os.scandir(directory) as found:
            entries = [entry for entry in found if not entry.name.startswith(".")]
    except OSError as error:
        raise UserError(f"{directory}: cannot be read ({error.strerror or error})") from None
    for entry in sorted(entries, key=lambda entry: (entry.is_symlink() and is_directory(entry), entry.path)):
        if not is_directory(entry):
            yield entry
        elif os.path.realpath(entry.path) not in visited:
            yield entry
            yield from walk(entry.path, visited)


def is_directory(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a directory or a link to one, without an error for a link to itself."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


@contextlib.contextmanager
def stored_pipes(paths: str) -> Iterator[str]:
    """Replaces "-", which is standard input, and pipes by temporary files: inputs are read more than once.

    Args:
      paths: as for `split_paths`, which the result is for too.

    Raises:
      UserError: a pipe cannot be read or stored, or "-" is given twice.
    """
    split = split_paths(paths)
    if split.count(STANDARD_STREAM) > 1:
        raise UserError(f"{paths}: standard input, -, can be read only once; give - once")
    with tempfile.TemporaryDirectory(prefix="spanbert_jax-") as folder:
        yield ",".join(_stored(path, folder) for path in split)


@contextlib.contextmanager
def writable(output: str | os.PathLike) -> Iterator[str | os.PathLike]:
    """The path of a file to create. For "-" it is temporary, and its content goes to standard output at the end.

    Raises OutputLost if standard output is closed, at once, or cannot be written.
    """
    if output != STANDARD_STREAM:
        yield output
        return
    require_output()  # before hours of work
    with tempfile.TemporaryDirectory(prefix="spanbert_jax-") as folder:
        path = os.path.join(folder, "standard-output")
        yield path
        with open(path, "rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
        require_output()


def argument_text(argument: str) -> str:
    """A text of the command line; bytes that the locale's encoding, such as ASCII, does not have are read as UTF-8."""
    return argument.encode(errors="surrogateescape").decode(errors="replace")


def standard_input() -> BinaryIO:
    """Standard input. Raises UserError if it is closed."""
    if sys.stdin is None:
        raise UserError("-: standard input is closed; give a file, or a pipe")
    return sys.stdin.buffer


def _stored(path: str, folder: str) -> str:
    if path != STANDARD_STREAM and not is_pipe(path):
        return path
    name = "standard-input" if path == STANDARD_STREAM else path.strip("/").replace("/", "-")
    try:
        with (contextlib.nullcontext(standard_input()) if path == STANDARD_STREAM else open(path, "rb") as source,
              open(os.path.join(folder, name), "wb") as target):
            shutil.copyfileobj(source, target)
    except OSError as error:
        raise UserError(f"{name}: cannot be read and stored in {folder} ({error.strerror}); make room there, or set "
                        "TMPDIR to another directory") from None
    return target.name


def is_pipe(path: str) -> bool:
    """Whether a path is a pipe, such as those of `<(COMMAND)` in a shell."""
    return os.path.exists(path) and stat.S_ISFIFO(os.stat(path).st_mode)
