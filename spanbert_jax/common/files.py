"""Files that are never seen half-written, and the folder for files that can be made again."""
import contextlib
import errno
import functools
import logging
import os
import pathlib
import pwd
import re
import secrets
import stat
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

from spanbert_jax.common.paths import user_path

GIT_LFS_POINTER = b"version https://git-lfs.github.com/spec/"  # first bytes of what stands for a file not yet fetched

# A temporary file that is this much older than a new one was left by a killed process.
_ABANDONED_SECONDS = 3600.0
_NAME_BYTES = 150  # of a file that its temporary files are named after; names may have 255
_NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
logger = logging.getLogger("spanbert_jax")


def cache_folder() -> pathlib.Path:
    """Returns this package's folder in the user's cache folder. It may not exist yet.

    Without a home directory that can be written it is a folder for this user among the temporary files.
    """
    return _usable_cache(os.path.join(os.environ.get("XDG_CACHE_HOME") or user_path("~/.cache"),
                                      "spanbert_jax"))


def write_text(path: pathlib.Path, text: str, sync: bool = False) -> None:
    """Writes a file under a temporary name and renames it, so that nobody sees it half-written.

    With `sync` it returns only when content and name are on the disk. If it raises OSError, an existing file is
    unchanged. A link is replaced, and what it points to stays.
    """
    with temporary_file(path) as (temporary, file):
        file.write(to_utf8(text))
        if sync:
            file.flush()
            os.fsync(file.fileno())
        file.close()  # network file systems report failed writes here
        try:
            os.replace(temporary, path)
        except IsADirectoryError as error:
            raise IsADirectoryError(error.errno, error.strerror, os.fspath(path)) from None  # not the temporary name
    if sync:
        sync_directory(path.parent)


def to_utf8(text: str) -> bytes:
    """A text in UTF-8; bytes of file names that are not UTF-8 become escapes, which JSON reads back."""
    return text.encode("utf-8", "backslashreplace")


@contextlib.contextmanager
def temporary_file(path: pathlib.Path) -> Iterator[tuple[pathlib.Path, BinaryIO]]:
    """Yields a new file beside `path`, open for writing, and its own path. It is removed at the end if it is there.

    No existing file is opened. Files that killed processes left for the same path are removed.
    """
    temporary = path.with_name(temporary_name(path.name, "tmp"))
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with open(descriptor, "wb") as file:
            _remove_abandoned(path, os.fstat(descriptor).st_mtime - _ABANDONED_SECONDS)
            yield temporary, file
    finally:
        temporary.unlink(missing_ok=True)


def temporary_name(name: str, ending: str) -> str:
    """A new name for what becomes `name` when it is complete; `temporary_names` matches it."""
    return f".{_short(name)}.{secrets.token_hex(4)}.{ending}"


def temporary_names(name: str, ending: str) -> re.Pattern[str]:
    """A pattern of the whole names that `temporary_name` makes."""
    return re.compile(rf"\.{re.escape(_short(name))}\.[0-9a-f]{{8}}\.{ending}")


def publish(temporary: pathlib.Path, path: pathlib.Path) -> None:
    """Renames a finished file. Raises FileExistsError if anything, such as a link, is at `path` by then."""
    try:
        os.link(temporary, path, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        # Without hard links: the name is taken by an empty file first, which is then replaced.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        os.replace(temporary, path)
    else:
        os.unlink(temporary)


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Opens a regular file for reading. Raises OSError if it is something else, such as a pipe, which might wait."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return open(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))


@contextlib.contextmanager
def usual_mode(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives the file that a library makes at a new path the mode of other new files: some allow only their user."""
    with open(path, "xb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    yield path
    path.chmod(mode)


def can_be_made(folder: str | os.PathLike[str]) -> bool:
    """Whether this user can write a folder, or create it."""
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder) or "."
    return os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)


def describe_failure(error: OSError, path: str | os.PathLike[str]) -> str:
    """Why something at `path` cannot be written, for a message: if it belongs to another user, to whom."""
    reason, place = error.strerror or str(error), error.filename or path
    if not isinstance(error, PermissionError):
        return reason
    while not os.path.lexists(place):
        place = os.path.dirname(place) or "."
    user = os.lstat(place).st_uid
    if user == os.geteuid():
        return f"{reason}: {os.fspath(place)}"
    name = str(user)
    with contextlib.suppress(KeyError):
        name = pwd.getpwuid(user).pw_name
    return f"{reason}: {os.fspath(place)} belongs to {name}, who can share it by umask 002 and chmod -R g+w"


def sync_directory(path: str | os.PathLike[str]) -> None:
    """Flushes the names in a directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@functools.cache
def _usable_cache(wanted: str) -> pathlib.Path:
    if not wanted.startswith("~") and can_be_made(wanted):  # "~" is left if the user has no home
        return pathlib.Path(wanted)
    own = os.path.join(tempfile.gettempdir(), f"spanbert_jax-{os.getuid()}")
    with contextlib.suppress(FileExistsError):
        os.mkdir(own, 0o700)
    found = os.lstat(own)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:  # not ours alone
        own = tempfile.mkdtemp(prefix="spanbert_jax-")
    logger.warning("%s: cannot be written; what can be made again is kept in %s; set XDG_CACHE_HOME to keep it "
                   "elsewhere", wanted, own)
    return pathlib.Path(own)


def _short(name: str) -> str:
    """The start of a name that is too long to be part of another."""
    return os.fsencode(name)[:_NAME_BYTES].decode(errors="ignore") if len(os.fsencode(name)) > _NAME_BYTES else name


def _remove_abandoned(path: pathlib.Path, latest: float) -> None:
    """Removes temporary files for `path` that were not changed after `latest`, by the clock of the file system."""
    names = temporary_names(path.name, "tmp")
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            if names.fullmatch(entry.name):
                found = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(found.st_mode) and found.st_mtime < latest:
                    os.unlink(entry.path)
