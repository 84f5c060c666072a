"""Directories that appear completely or not at all."""
import contextlib
import errno
import os
import pathlib
import re
import shutil
import socket
from collections.abc import Iterator

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.paths import user_path


def require_absent_or_empty(out: str | os.PathLike) -> None:
    """Raises UserError unless nothing, or an empty directory, is at `out`."""
    out = user_path(out)
    try:
        occupied = out.is_symlink() or (out.exists() and not (out.is_dir() and not any(out.iterdir())))
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror}); give another directory") from None
    if occupied:
        raise UserError(f"{out}: exists already and is not overwritten; give another directory, or remove it")


@contextlib.contextmanager
def new_directory(out: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary directory to fill. It is renamed to `out` at the end, or removed after an error.

    Temporary directories that killed processes left for the same `out` are removed. If `out` is an empty directory, it
    stays and receives the files.

    Raises:
      UserError: something is at `out`, or the disk cannot be written.
    """
    out = user_path(out).absolute()
    require_absent_or_empty(out)
    out_exists = out.is_dir()  # perhaps a mount point, which cannot be the target of a rename
    parent = out if out_exists else out.parent
    new_parents = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    partial = parent / f".{out.name}.{socket.gethostname()}-{os.getpid()}.partial"
    done = False
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(parent, out.name)
        partial.mkdir()
        yield partial
        if out_exists:
            for child in partial.iterdir():
                child.rename(out / child.name)
        else:
            partial.rename(out)
        done = True
    except Exception as error:
        # PyTorch, safetensors and TensorFlow raise their own types for a full disk.
        full = os.strerror(errno.ENOSPC) in str(error)
        if not isinstance(error, OSError) and not full:
            raise
        reason = os.strerror(errno.ENOSPC) if full else getattr(error, "strerror", None) or error
        raise UserError(f"{out}: cannot be written ({reason}); nothing is left of it; make room, or give another "
                        "directory") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        for folder in () if done else new_parents:
            with contextlib.suppress(OSError):
                folder.rmdir()


def replace_directory(new: pathlib.Path, target: pathlib.Path) -> None:
    """Renames a finished directory to `target`. If this fails or is interrupted, a previous `target` is restored."""
    old = target.with_name(f".{target.name}.old")
    remove_directory(old)
    try:
        if target.exists():
            target.rename(old)
        new.rename(target)
    except BaseException:
        if old.exists() and not target.exists():
            old.rename(target)
        raise
    finally:
        remove_directory(old)


def remove_directory(directory: pathlib.Path) -> None:
    """Removes a directory if it exists. A stop request that arrives meanwhile is raised after the removal."""
    if directory.exists():
        try:
            shutil.rmtree(directory)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise


def _remove_leftovers(parent: pathlib.Path, name: str) -> None:
    """Removes the temporary directories of dead processes of this machine."""
    leftover = re.compile(re.escape(f".{name}.{socket.gethostname()}-") + r"(\d+)\.partial")
    for path in parent.iterdir():
        if match := leftover.fullmatch(path.name):
            try:
                os.kill(int(match[1]), 0)  # sends no signal, only checks
            except ProcessLookupError:
                shutil.rmtree(path, ignore_errors=True)
            except OSError:  # the process lives and belongs to another user
                pass
