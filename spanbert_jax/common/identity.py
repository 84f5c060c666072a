"""What tells one file, or one program, from another: their content."""
import functools
import hashlib
import os
import pathlib
import stat
import time

_SETTLED_SECONDS = 2.0  # within which a second change may leave the same times, on file systems with coarse clocks
_digests: dict[tuple[int, ...], str] = {}  # by stamp


def file_stamp(path: str | os.PathLike) -> tuple[int, ...] | None:
    """Device, inode, size, and times of the last change of content and of status in ns of a regular file.

    A file with the same stamp has the same content: nobody can set the time of the last change of status. None if the
    file has changed so recently that another change might leave the stamp, or is missing.
    """
    try:
        status = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode) or time.time() - status.st_ctime < _SETTLED_SECONDS:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def content_digest(path: str | os.PathLike) -> str:
    """A hash of a file's content. A file is read once in a process, and again if it has changed. May raise OSError."""
    if (stamp := file_stamp(path)) and stamp in _digests:
        return _digests[stamp]
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, functools.partial(hashlib.blake2b, digest_size=16)).hexdigest()
    if stamp and stamp == file_stamp(path):
        _digests[stamp] = digest
    return digest


@functools.cache
def code_digest(path: pathlib.Path) -> str:
    """A hash of a Python file, or of those below a folder, as they were at the first call."""
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
