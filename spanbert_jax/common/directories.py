"""Directories that appear whole or not at all."""
from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import re
import shutil
import socket
from collections.abc import Iterator

from spanbert_jax.common.errors import UserError


def require_absent_or_empty(out: str | pathlib.Path) -> None:
    """That a directory can be made where nothing is yet, or filled where it is empty.

    Raises:
      UserError: when something is there already, or it cannot be seen.
    """
    out = pathlib.Path(out).expanduser()
    try:
        taken = out.is_symlink() or out.exists() and not (out.is_dir() and not any(out.iterdir()))
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror}); give another directory") from None
    if taken:
        raise UserError(f"{out}: there already, and nothing is overwritten; give another directory, or remove it")


@contextlib.contextmanager
def new_directory(out: pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary directory to be filled, which takes its name at the end, or is removed when anything goes wrong.

    What a killed process has left of the same is removed too. An empty directory at `out` stays, and gets the files.

    Raises:
      UserError: when there is something at `out`, or the disk does not take it.
    """
    out = out.absolute()
    require_absent_or_empty(out)
    there = out.is_dir()  # perhaps a mount, which cannot be renamed to
    place = out if there else out.parent
    made = [parent for parent in (place, *place.parents) if not parent.exists()]
    partial = place / f".{out.name}.{socket.gethostname()}-{os.getpid()}.partial"
    done = False
    try:
        place.mkdir(parents=True, exist_ok=True)
        _remove_remains(place, out.name)
        partial.mkdir()
        yield partial
        if there:
            for child in partial.iterdir():
                child.rename(out / child.name)
        else:
            partial.rename(out)
        done = True
    except Exception as error:
        # PyTorch, safetensors and TensorFlow have errors of their own for a full disk.
        full = os.strerror(errno.ENOSPC) in str(error)
        if not isinstance(error, OSError) and not full:
            raise
        reason = os.strerror(errno.ENOSPC) if full else getattr(error, "strerror", None) or error
        raise UserError(f"{out}: cannot be written ({reason}); nothing is left of it; make room, or give another "
                        "directory") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        for parent in () if done else made:
            with contextlib.suppress(OSError):
                parent.rmdir()


def _remove_remains(place: pathlib.Path, name: str) -> None:
    """Removes what processes of this machine that are dead have left half-written."""
    left = re.compile(re.escape(f".{name}.{socket.gethostname()}-") + r"(\d+)\.partial")
    for path in place.iterdir():
        if match := left.fullmatch(path.name):
            try:
                os.kill(int(match[1]), 0)  # sends nothing
            except ProcessLookupError:
                shutil.rmtree(path, ignore_errors=True)
            except OSError:  # it lives, and is another user's
                pass
