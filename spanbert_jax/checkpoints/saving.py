"""One save: Orbax writes it in the background while training continues."""
import functools
import itertools
import math
import os
import pathlib
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax._src import distributed

from spanbert_jax.checkpoints.folder import METADATA, STATE
from spanbert_jax.common.files import temporary_file
from spanbert_jax.common.formatting import format_bytes

_TIMEOUT_SECONDS = 1200  # a save that takes longer fails
# Space for the files that Orbax writes in addition to the arrays, and for the file system.
_SPARE_SHARE, _SPARE_BYTES = 0.02, 1 << 20
_REACHED = "reached"
_numbers = itertools.count()


class Save:
    """One save. Every process starts it once; process 0 knows its result."""

    def __init__(self, path: str | os.PathLike, finish: Callable[[], None], fail: Callable[[str], None]):
        """Prepares a save into the folder `path`. Nothing is written yet.

        Args:
          finish: called in the background when everything is written. An exception of it fails the save.
          fail: called with the reason when the save fails, in the background or by `begin`.
        """
        self._path, self._finish, self._fail = path, finish, fail
        self._barrier = _Barrier()
        # A single process reports at once that a folder cannot be created. Several processes must not wait for each
        # other in a call that one of them has left with an error.
        options = ocp.options.AsyncOptions(timeout_secs=_TIMEOUT_SECONDS, barrier_sync_fn=self._barrier,
                                           create_directories_asynchronously=jax.process_count() > 1)
        # A new one for each save, so that no state of a failed save remains.
        self._orbax = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler(
            composite_options=ocp.CompositeOptions(async_options=options)), async_options=options)
        self._thread = threading.Thread(target=self._wait_for_orbax, name="save")
        self._reason: str | None = None

    def begin(self, state: Any, metadata: dict[str, Any]) -> bool:
        """Copies the state, which may then be donated, and starts to write. Returns whether that worked."""
        _ignore_late_results()
        try:
            self._orbax.save(os.path.abspath(self._path), args=ocp.args.Composite(
                **{STATE: ocp.args.StandardSave(state), METADATA: ocp.args.JsonSave(metadata)}))
        except Exception as error:
            self._handle_failure(error)
            return False
        self._thread.start()
        return True

    def wait(self) -> str | None:
        """Waits for the end of the save. Returns why it failed, or None."""
        if self._thread.ident:
            self._thread.join()
        return self._reason

    def cancel(self) -> None:
        """Abandons a save that failed on process 0, for which Orbax would let the other processes wait for minutes."""
        self._orbax.cancel()

    def _wait_for_orbax(self) -> None:
        try:
            self._orbax.close()
            self._finish()
        except Exception as error:
            self._handle_failure(error)

    def _handle_failure(self, error: Exception) -> None:
        self._reason = short_reason(error)
        self._barrier.fail(self._reason)
        self._fail(self._reason)


@functools.cache
def _ignore_late_results() -> None:
    """Keeps Python from printing a traceback for each file that TensorStore finishes after its save has failed."""
    previous = sys.unraisablehook

    def report(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            previous(unraisable)

    sys.unraisablehook = report


def find_obstacle(folder: pathlib.Path, size: int) -> str | None:
    """Returns why `size` bytes of arrays cannot be stored in an existing folder, or None."""
    try:
        with temporary_file(folder / "writable") as (_, probe):
            probe.write(b"written")
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return short_reason(error)
    needed = math.ceil(size * (1 + _SPARE_SHARE)) + _SPARE_BYTES
    return f"{format_bytes(needed)} are needed and {format_bytes(free)} are free" if free < needed else None


def short_reason(error: BaseException) -> str:
    """Returns the root cause of an error as a short text, such as "No space left on device"."""
    while error.__cause__:
        error = error.__cause__
    text = " ".join(str(error).split())
    if number := re.search(r"os_error_code='(\d+)'", text):
        return os.strerror(int(number.group(1)))
    if isinstance(error, _PeerFailed):
        return text
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f": {error.filename}" if error.filename else "")
    return f"{type(error).__name__}: {text}"[:200]


class _PeerFailed(Exception):
    """Another process reported a failure."""


class _Barrier:
    """The barrier at which processes wait for each other, in the background, between the phases of a commit.

    With Orbax's own barrier the other processes wait for the timeout if one fails. Here the failed process informs
    them: a phase ends when every process has reached it or has failed.
    """

    def __init__(self) -> None:
        self._number, self._phase, self._reported = next(_numbers), 0, False
        self._client: Any = distributed.global_state.client  # None in a run of one process
        if self._client and jax.process_count() > 1 and jax.process_index() == 0:
            # All processes have finished the save before the previous one.
            self._client.key_value_delete(f"spanbert_jax/saves/{self._number - 2}/")

    def __call__(self, *, key: str, timeout_ms: int) -> None:
        if jax.process_count() == 1:
            return
        deadline = time.monotonic() + timeout_ms / 1000
        self._report(_REACHED)
        reports = [self._client.blocking_key_value_get(
            self._key(process), max(1, int(1000 * (deadline - time.monotonic()))))
            for process in range(jax.process_count())]
        for process, report in enumerate(reports):
            if report != _REACHED:
                raise _PeerFailed(f"process {process}: {report}")
        self._phase, self._reported = self._phase + 1, False

    def fail(self, reason: str) -> None:
        """Informs the other processes that this one has failed."""
        if jax.process_count() > 1 and not self._reported:
            self._report(reason)

    def _report(self, text: str) -> None:
        self._reported = True
        self._client.key_value_set(self._key(jax.process_index()), text)

    def _key(self, process: int) -> str:
        return f"spanbert_jax/saves/{self._number}/{self._phase}/{process}"
