"""Exclusive locks among the processes of one machine."""
import contextlib
import errno
import fcntl
import os
import pathlib
import stat
from collections.abc import Iterator
from typing import NamedTuple

_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class LockHeld(Exception):
    """Another process holds the lock."""


class Lock(NamedTuple):
    """A lock that this process holds."""
    file: int  # descriptor of the open file
    supported: bool  # False if the file system has no locks; then other processes are not kept out


@contextlib.contextmanager
def exclusive_lock(path: pathlib.Path, flags: int = os.O_RDWR | os.O_CREAT) -> Iterator[Lock]:
    """Holds the kernel's exclusive lock on a file. It ends with the process, however that ends.

    Args: flags: of `os.open`, which does not follow a link.

    Raises:
      LockHeld: another process holds the lock; there is no waiting.
      OSError: the file is a link or otherwise not regular, or cannot be opened or locked.
    """
    # Users of one group may share a folder. Opening a pipe would wait for its other end.
    file = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        supported = True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockHeld(str(path)) from None
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            supported = False
        yield Lock(file, supported)
    finally:
        os.close(file)
