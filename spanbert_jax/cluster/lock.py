"""One run for a workdir at a time, on one machine or on many that share a file system."""
from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import json
import os
import pathlib
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from spanbert_jax.common.errors import UserError

LOCK_FILE = ".lock"
_TOUCH_SECONDS = 10.0
_WATCH_SECONDS = 60.0
_WATCH_POLLS = 60
# Untouched for so long by the file's clock, against which this machine's may be wrong, it need not be watched.
_FORGOTTEN_SECONDS = 3600.0


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def hold(workdir: str | os.PathLike, log: Callable[[str], None] = _log, touch_seconds: float = _TOUCH_SECONDS,
         watch_seconds: float = _WATCH_SECONDS) -> Iterator[None]:
    """Makes the workdir where there is none, and keeps other runs out of it. Only one process of a run calls this.

    Among the processes of one machine the kernel's lock on WORKDIR/.lock decides, which no dead process holds. Many
    file systems do not share such locks between machines, so the file also names its holder, who touches it as long as
    it lives: a lock of another machine is watched, and only taken over if nobody touches it meanwhile. A run that ends
    by itself empties the file, and nobody waits.

    Args:
      workdir: of the run.
      say: told when a lock is watched and when it is taken over.
      touch_seconds: between touches.
      watch_seconds: how long a lock of another machine must stay untouched.

    Raises:
      UserError: another run holds it, or it is no directory that can be written.
    """
    workdir = pathlib.Path(workdir)
    holder = {"host": socket.gethostname(), "machine": _machine(), "pid": os.getpid(),
              "since": datetime.datetime.now().astimezone().isoformat(timespec="seconds")}
    own = json.dumps(holder).encode() + b"\n"
    with contextlib.ExitStack() as stack:
        file = _open(workdir)
        stack.callback(os.close, file)
        alone_here = _lock(file, workdir)
        _outwait(workdir, alone_here, watch_seconds, log)
        _write(file, workdir, own)
        stack.callback(_empty, file, own)
        stack.enter_context(_touching(file, touch_seconds))
        yield


def _open(workdir: pathlib.Path) -> int:
    path = workdir / LOCK_FILE
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        if os.path.isdir(path):
            raise UserError(f"workdir {workdir}: {LOCK_FILE} in it is a directory; remove it") from None
        if isinstance(error, (FileExistsError, NotADirectoryError)):
            raise UserError(f"workdir {workdir}: it, or a part of its path, is a file; give a directory") from None
        raise _unusable(workdir, error) from None


def _unusable(workdir: pathlib.Path, error: OSError) -> UserError:
    return UserError(f"workdir {workdir}: cannot be written ({error.strerror}); mend that, or give another")


def _lock(file: int, workdir: pathlib.Path) -> bool:
    """Takes the kernel's lock. False where the file system has none, and then the touches alone decide."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _in_use(workdir, _holder(_look(workdir)[1])) from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            raise _unusable(workdir, error) from None
        return False
    return True


def _in_use(workdir: pathlib.Path, holder: dict[str, Any]) -> UserError:
    return UserError(f"workdir {workdir}: another run is using it ({_name(holder)}); wait for it, end it, or give "
                     "another workdir")


def _name(holder: dict[str, Any]) -> str:
    return f"process {holder.get('pid', '?')} on {holder.get('host', '?')}, since {holder.get('since', '?')}"


def _outwait(workdir: pathlib.Path, alone_here: bool, watch_seconds: float, log: Callable[[str], None]) -> None:
    """Returns when no other machine holds the workdir. Raises UserError if one does."""
    touched, content = _look(workdir)
    holder = _holder(content)
    if not content.strip() or (alone_here and holder.get("machine") == _machine()):
        return
    if abs(time.time() - touched / 1e9) < _FORGOTTEN_SECONDS:
        log(f"workdir {workdir}: may be in use by {_name(holder)}; waiting {watch_seconds:g} s for a sign of life")
        deadline = time.monotonic() + watch_seconds
        while time.monotonic() < deadline:
            time.sleep(watch_seconds / _WATCH_POLLS)
            now_touched, now_content = _look(workdir)
            if not now_content.strip():
                return
            if (now_touched, now_content) != (touched, content):
                raise _in_use(workdir, _holder(now_content))
    log(f"workdir {workdir}: taken over from {_name(holder)}, which gave no sign of life")


def _look(workdir: pathlib.Path) -> tuple[int, bytes]:
    """When the file was touched last, in ns, and what it says. Opened anew: that is when NFS asks the server."""
    try:
        with open(workdir / LOCK_FILE, "rb") as file:
            return os.fstat(file.fileno()).st_mtime_ns, file.read(4096)
    except OSError as error:
        raise _unusable(workdir, error) from None


def _holder(content: bytes) -> dict[str, Any]:
    """Who a lock file names; {} if it was not written to its end."""
    try:
        holder = json.loads(content)
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _machine() -> str:
    """What the kernel's locks are shared within: one boot of one machine."""
    try:
        return pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def _write(file: int, workdir: pathlib.Path, content: bytes) -> None:
    try:
        os.pwrite(file, content, 0)
        os.ftruncate(file, len(content))
    except OSError as error:
        _empty(file, os.pread(file, len(content), 0))
        raise _unusable(workdir, error) from None


def _empty(file: int, own: bytes) -> None:
    """Tells the next one that nobody is there, unless the lock has been taken over."""
    with contextlib.suppress(OSError):
        if os.pread(file, len(own) + 1, 0) == own:
            os.ftruncate(file, 0)


@contextlib.contextmanager
def _touching(file: int, seconds: float) -> Iterator[None]:
    """Touches a file until left, whatever befalls its folder: a sign of life must never end a run."""
    left = threading.Event()

    def touch() -> None:
        while not left.wait(seconds):
            with contextlib.suppress(OSError):
                os.utime(file)

    thread = threading.Thread(target=touch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join(timeout=1)  # a disk that does not answer must not keep a run from ending
