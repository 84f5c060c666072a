"""Directories that appear whole or not at all."""
from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from spanbert_jax.errors import UserError


def check_free(out: str | pathlib.Path) -> None:
    """That a directory can be made where nothing is yet, or an empty one.

    Raises:
      UserError: when something is there already.
    """
    out = pathlib.Path(out)
    if out.is_symlink() or out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{out}: there already, and nothing is overwritten; give another directory, or remove it")


@contextlib.contextmanager
def new_directory(out: pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary directory to be filled, which takes its name at the end, or is removed when anything goes wrong.

    Raises:
      UserError: when there is something at `out`, or the disk does not take it.
    """
    out = out.absolute()
    check_free(out)
    partial = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = pathlib.Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
        yield partial
        os.chmod(partial, 0o777 & ~_umask())  # mkdtemp's are for their owner alone
        partial.rename(out)
    except Exception as error:
        # PyTorch, safetensors and TensorFlow have errors of their own for a full disk.
        full = os.strerror(errno.ENOSPC) in str(error)
        if not isinstance(error, OSError) and not full:
            raise
        reason = os.strerror(errno.ENOSPC) if full else getattr(error, "strerror", None) or error
        raise UserError(f"{out}: cannot be written ({reason}); nothing is left of it; make room, or give another "
                        "directory") from None
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
