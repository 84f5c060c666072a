"""Paths as users write them: `~`, several separated by commas, standard input and pipes."""
import contextlib
import glob
import os
import pathlib
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator

from spanbert_jax.common.errors import UserError

STANDARD_STREAM = "-"  # stands for standard input or output


def user_path(path: str | os.PathLike) -> pathlib.Path:
    """A path that a user gave, with `~` and `~name` at its start replaced by the home directory."""
    return pathlib.Path(os.path.expanduser(path))


def split_paths(paths: str) -> list[str]:
    """The paths and globs separated by commas, with `~` replaced. What does not exist may continue after its comma."""
    words, found = paths.split(","), []
    while words:
        candidates = [os.path.expanduser(",".join(words[:count]).strip()) for count in range(1, len(words) + 1)]
        count, path = next(((count, path) for count, path in enumerate(candidates, 1)
                            if path and glob.glob(path, recursive=True)), (1, candidates[0]))
        found.append(path)
        words = words[count:]
    return [path for path in found if path]


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
    """The path of a file to create. For "-" it is temporary, and its content goes to standard output at the end."""
    if output != STANDARD_STREAM:
        yield output
        return
    with tempfile.TemporaryDirectory(prefix="spanbert_jax-") as folder:
        path = os.path.join(folder, "standard-output")
        yield path
        with open(path, "rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.flush()


def _stored(path: str, folder: str) -> str:
    if path != STANDARD_STREAM and not is_pipe(path):
        return path
    name = "standard-input" if path == STANDARD_STREAM else path.strip("/").replace("/", "-")
    try:
        with (contextlib.nullcontext(sys.stdin.buffer) if path == STANDARD_STREAM else open(path, "rb") as source,
              open(os.path.join(folder, name), "wb") as target):
            shutil.copyfileobj(source, target)
    except OSError as error:
        raise UserError(f"{name}: cannot be read and stored in {folder} ({error.strerror}); make room there, or set "
                        "TMPDIR to another directory") from None
    return target.name


def is_pipe(path: str) -> bool:
    """Whether a path is a pipe, such as those of `<(COMMAND)` in a shell."""
    return os.path.exists(path) and stat.S_ISFIFO(os.stat(path).st_mode)
