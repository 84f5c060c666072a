"""Directories that appear completely or not at all, and the marked directories in which they are made."""
import contextlib
import errno
import os
import pathlib
import shutil
import socket
import stat
import time
from collections.abc import Iterator

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.files import describe_failure, publish, temporary_name, temporary_names
from spanbert_jax.common.locks import LockHeld, exclusive_lock
from spanbert_jax.common.paths import user_path, utf8_path

# Only a directory with this file in it is ever emptied. It names the host; its lock shows whether the process lives.
MARKER = "unfinished-work-of-spanbert-jax"
_NEW, _OLD = "new", "old"  # beside the marker: what is being made, and what it replaces
_ENDING = "partial"
# Locks may not be shared between machines: what another one left is removed after this time.
_ABANDONED_SECONDS = 7 * 86_400.0


def require_absent_or_empty(out: str | os.PathLike) -> None:
    """Raises UserError unless nothing, or an empty directory, is at `out`."""
    out = user_path(out)
    try:
        occupied = out.is_symlink() or (out.exists() and not (out.is_dir() and _is_empty(out)))
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror}); give another directory") from None
    if occupied:
        raise UserError(f"{out}: exists already and is not overwritten; give another directory, or remove it")


@contextlib.contextmanager
def partial_directory(parent: pathlib.Path, name: str, exclusive: bool = False) -> Iterator[pathlib.Path]:
    """Yields a new directory to fill, on the file system of `parent`. It is removed at the end unless it was renamed.

    It lies in PARENT/.NAME.XXXXXXXX.partial, with a marker that this process locks. Directories of this name that have
    a marker and whose process is gone are removed; what they were about to replace is put back if nothing took its
    place.

    Args: exclusive: keep other processes from working on the same name.

    Raises:
      LockHeld: with `exclusive`, another process works on it.
      OSError: the disk cannot be written, or, with `exclusive`, has no locks.
    """
    new_parents = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    work = parent / temporary_name(name, _ENDING)
    made = False
    try:
        parent.mkdir(parents=True, exist_ok=True)
        work.mkdir()  # fails if anything has this name
        made = True
        with exclusive_lock(work / MARKER, os.O_RDWR | os.O_CREAT | os.O_EXCL) as lock:
            os.write(lock.file, _host())  # only now that it is locked: an empty marker is left alone
            if _remove_leftovers(parent, name, own=work) and exclusive:
                raise LockHeld(str(parent / name))
            if exclusive and not lock.supported:
                raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
            (work / _NEW).mkdir()
            yield work / _NEW
    finally:
        if made:
            remove_directory(work)
        for folder in new_parents:
            with contextlib.suppress(OSError):  # used by now
                folder.rmdir()


@contextlib.contextmanager
def new_directory(out: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary directory to fill. It is renamed to `out` at the end, or removed after an error.

    If `out` is an empty directory, it stays and receives the files.

    Raises:
      UserError: something is at `out`, also if it appears meanwhile, or the disk cannot be written.
    """
    out = utf8_path(out).absolute()
    require_absent_or_empty(out)
    out_exists = out.is_dir()  # perhaps a mount point, which cannot be the target of a rename
    try:
        with partial_directory(out if out_exists else out.parent, out.name) as new:
            yield new
            require_absent_or_empty(out)
            if out_exists:
                for child in new.iterdir():
                    child.rename(out / child.name) if child.is_dir() else publish(child, out / child.name)
            else:
                new.rename(out)  # fails if a file or a directory with files is there
    except Exception as error:
        # PyTorch, safetensors and TensorFlow raise their own types for a full disk.
        full = os.strerror(errno.ENOSPC) in str(error)
        if not isinstance(error, OSError) and not full:
            raise
        reason = describe_failure(error, out) if isinstance(error, OSError) else os.strerror(errno.ENOSPC)
        raise UserError(f"{out}: cannot be written ({reason}); nothing is left of it; make room, or give another "
                        "directory") from None


def make_own_directory(directory: pathlib.Path, parents: bool = True) -> None:
    """Creates a directory of a run in its workdir, with `parents` if they are missing, unless it is there.

    Raises:
      UserError: a file or a link, behind which anything could be, is at this path.
      OSError: it cannot be created.
    """
    if directory.is_symlink():
        raise UserError(f"{directory}: is a link, and a run writes only into its own workdir; move it away, or make "
                        "the whole workdir a link")
    try:
        directory.mkdir(parents=parents, exist_ok=True)
    except FileExistsError:
        raise UserError(f"{directory}: is a file where a folder is needed; move it away, or give another "
                        "workdir") from None


def replace_directory(new: pathlib.Path, target: pathlib.Path) -> None:
    """Renames a finished directory of `partial_directory` to `target`, and removes a previous `target`.

    The caller makes sure that the previous one is ours. If this fails or is interrupted, it is restored.
    """
    old = new.with_name(_OLD)
    try:
        if os.path.lexists(target):
            target.rename(old)
        new.rename(target)
    except BaseException:
        _restore(old, target)
        raise
    remove_directory(old)


def remove_directory(directory: pathlib.Path) -> None:
    """Removes a directory as far as possible; of a link, only the link.

    A stop request that arrives meanwhile is raised after the removal.
    """
    if directory.is_symlink():
        directory.unlink()
        return
    try:
        shutil.rmtree(directory, ignore_errors=True)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def _is_empty(directory: pathlib.Path) -> bool:
    """Whether nothing is in a directory but unfinished work for it."""
    names = temporary_names(directory.name, _ENDING)
    return all(names.fullmatch(path.name) and (path / MARKER).is_file() for path in directory.iterdir())


def _remove_leftovers(parent: pathlib.Path, name: str, own: pathlib.Path) -> bool:
    """Removes the unfinished work of processes that are gone. Returns whether another one works on the same name."""
    names, held = temporary_names(name, _ENDING), False
    with contextlib.suppress(PermissionError), os.scandir(parent) as entries:
        for entry in entries:
            if names.fullmatch(entry.name) and entry.name != own.name and entry.is_dir(follow_symlinks=False):
                held |= _is_held(pathlib.Path(entry.path), parent / name)
    return held


def _is_held(work: pathlib.Path, target: pathlib.Path) -> bool:
    """Whether another process holds the lock of unfinished work; if its process is gone, the work is removed."""
    marker = work / MARKER
    try:
        found = marker.lstat()
        old = time.time() - found.st_mtime > _ABANDONED_SECONDS
        if not stat.S_ISREG(found.st_mode) or not (found.st_size or old):  # not ours, or being made
            return False
        with exclusive_lock(marker, os.O_RDWR if os.access(marker, os.W_OK) else os.O_RDONLY) as lock:
            if lock.supported and (old or os.read(lock.file, 1000) == _host()):
                _restore(work / _OLD, target)
                remove_directory(work)
            return False
    except LockHeld:
        return True
    except OSError:  # no marker, so it is not ours; or another user's
        return False


def _host() -> bytes:
    """What a marker holds."""
    return f"{socket.gethostname()}\n".encode()


def _restore(old: pathlib.Path, target: pathlib.Path) -> None:
    """Puts the previous directory back if there is one and nothing took its place."""
    if os.path.lexists(old) and not os.path.lexists(target):
        old.rename(target)
