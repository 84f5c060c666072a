"""One run per workdir at a time, on one machine or on several machines that share a file system."""
import contextlib
import datetime
import json
import os
import pathlib
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypedDict

from spanbert_jax.common.errors import UserError, printable
from spanbert_jax.common.files import describe_failure
from spanbert_jax.common.json_files import JsonError, parse_json
from spanbert_jax.common.locks import Lock, LockHeld, exclusive_lock

LOCK_FILE = ".lock"
_WATCH_POLLS = 60
# A file this old, by clocks that may differ between machines, is not watched before it is taken over.
_STALE_SECONDS = 3600.0


class _Holder(TypedDict, total=False):
    """What a lock file holds."""
    host: str
    machine: str
    pid: int
    since: str


@contextlib.contextmanager
def lock_workdir(workdir: str | os.PathLike[str],
                 log: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
                 touch_seconds: float = 10, watch_seconds: float = 60) -> Iterator[None]:
    """Creates the workdir if needed and keeps other runs out of it. Only one process of a run calls this.

    On one machine the kernel's lock on WORKDIR/.lock decides; it ends with the process. Many file systems do not share
    such locks between machines. So the file also names its holder, which touches it regularly. A lock of another
    machine is watched, and taken over only if nobody touches it meanwhile. A run that ends normally empties the file,
    so that the next one need not wait.

    Args:
      log: called with one line when a lock is watched and when it is taken over.
      touch_seconds: time between touches.
      watch_seconds: how long a lock of another machine must stay untouched.

    Raises:
      UserError: another run holds the lock, or the workdir cannot be written.
    """
    workdir = pathlib.Path(workdir)
    holder = {"host": socket.gethostname(), "machine": _machine(), "pid": os.getpid(),
              "since": datetime.datetime.now().astimezone().isoformat(timespec="seconds")}
    content = json.dumps(holder).encode() + b"\n"
    with contextlib.ExitStack() as stack:
        lock = _acquire(workdir, stack)
        _wait_for_other_machine(workdir, lock.supported, watch_seconds, log)
        _write(lock.file, workdir, content)
        stack.callback(_empty, lock.file, content)
        stack.enter_context(_touching(lock.file, touch_seconds))
        yield


def _acquire(workdir: pathlib.Path, stack: contextlib.ExitStack) -> Lock:
    """Takes the kernel's lock. Where the file system has none, only the touches decide."""
    path = workdir / LOCK_FILE
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        return stack.enter_context(exclusive_lock(path))
    except LockHeld:
        raise _in_use(workdir, _parse_holder(_read(workdir)[1])) from None
    except OSError as error:
        if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
            raise UserError(f"workdir {workdir}: {LOCK_FILE} in it is not a regular file; remove it") from None
        if isinstance(error, (FileExistsError, NotADirectoryError)):
            raise UserError(f"workdir {workdir}: it, or a part of its path, is a file; give a directory") from None
        raise _not_writable(workdir, error) from None


def _not_writable(workdir: pathlib.Path, error: OSError) -> UserError:
    return UserError(f"workdir {workdir}: cannot be written ({describe_failure(error, workdir)}); fix that, or give "
                     "another")


def _in_use(workdir: pathlib.Path, holder: dict[str, Any]) -> UserError:
    return UserError(f"workdir {workdir}: another run is using it ({_name(holder)}); wait for it, end it, or give "
                     "another workdir")


def _name(holder: dict[str, Any]) -> str:
    return printable(f"process {holder.get('pid', '?')} on {holder.get('host', '?')}, since {holder.get('since', '?')}")


def _wait_for_other_machine(workdir: pathlib.Path, has_kernel_lock: bool, watch_seconds: float,
                            log: Callable[[str], None]) -> None:
    """Returns when no other machine holds the workdir. Raises UserError if one does."""
    touched, content = _read(workdir)
    holder = _parse_holder(content)
    if not content.strip() or (has_kernel_lock and holder.get("machine") == _machine()):
        return
    if abs(time.time() - touched / 1e9) < _STALE_SECONDS:
        log(f"workdir {workdir}: may be in use by {_name(holder)}; waiting {watch_seconds:g} s for a sign of life")
        deadline = time.monotonic() + watch_seconds
        while time.monotonic() < deadline:
            time.sleep(watch_seconds / _WATCH_POLLS)
            now_touched, now_content = _read(workdir)
            if not now_content.strip():
                return
            if (now_touched, now_content) != (touched, content):
                raise _in_use(workdir, _parse_holder(now_content))
    log(f"workdir {workdir}: taken over from {_name(holder)}, which gave no sign of life")


def _read(workdir: pathlib.Path) -> tuple[int, bytes]:
    """Returns the modification time in ns and the content. Opens the file again, which makes NFS ask the server."""
    try:
        with open(workdir / LOCK_FILE, "rb") as file:
            return os.fstat(file.fileno()).st_mtime_ns, file.read(4096)
    except OSError as error:
        raise _not_writable(workdir, error) from None


def _parse_holder(content: bytes) -> dict[str, Any]:
    """Returns the holder that a lock file names; {} if the file is incomplete."""
    try:
        return {**parse_json(content, _Holder)}
    except JsonError:
        return {}


def _machine() -> str:
    """Returns the scope of the kernel's locks: one boot of one machine."""
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
        raise _not_writable(workdir, error) from None


def _empty(file: int, content: bytes) -> None:
    """Empties the lock file, unless another run has taken it over."""
    with contextlib.suppress(OSError):
        if os.pread(file, len(content) + 1, 0) == content:
            os.ftruncate(file, 0)


@contextlib.contextmanager
def _touching(file: int, seconds: float) -> Iterator[None]:
    """Touches a file regularly. A touch that fails must never end a run."""
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
