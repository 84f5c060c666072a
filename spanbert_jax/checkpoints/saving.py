"""One save, from the first byte to the step's appearance; Orbax writes it while the training goes on."""
from __future__ import annotations

import itertools
import os
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax._src import distributed

from spanbert_jax.checkpoints.folder import METADATA, STATE

# A save that takes longer has failed.
_TIMEOUT_SECONDS = 1200
_REACHED = "reached"
_numbers = itertools.count()


class Save:
    """Begun by every process, once. How it ended, the first process knows."""

    def __init__(self, path: str | os.PathLike, finish: Callable[[], None], fail: Callable[[str], None]):
        """Writes nothing yet.

        Args:
          path: the folder that is to hold the step.
          finish: called in the background when all of it is there; what it raises fails the save.
          fail: called with the reason, in the background or by `begin`, when it failed.
        """
        self._path, self._finish, self._fail = path, finish, fail
        self._barrier = _Barrier()
        # Where there is one process a folder that cannot be made is told at once; several must not wait for each other
        # in a call that one has left.
        options = ocp.options.AsyncOptions(
            timeout_secs=_TIMEOUT_SECONDS, barrier_sync_fn=self._barrier,
            create_directories_asynchronously=jax.process_count() > 1)
        # One for each save: nothing of a failed one lingers.
        self._orbax = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler(
            composite_options=ocp.CompositeOptions(async_options=options)), async_options=options)
        self._thread = threading.Thread(target=self._wait_for_orbax, name="save")
        self._reason: str | None = None

    def begin(self, state: Any, metadata: dict[str, Any]) -> bool:
        """Copies the state, which may be donated on return, and writes on in the background. Whether that has begun."""
        try:
            self._orbax.save(os.path.abspath(self._path), args=ocp.args.Composite(
                **{STATE: ocp.args.StandardSave(state), METADATA: ocp.args.JsonSave(metadata)}))
        except Exception as error:
            self._failed(error)
            return False
        self._thread.start()
        return True

    def wait(self) -> str | None:
        """Waits for the end of what was begun. Returns why it failed, or None."""
        if self._thread.ident:
            self._thread.join()
        return self._reason

    def cancel(self) -> None:
        """When it has failed on the first process, for which Orbax lets the others wait for minutes: lets go of it."""
        self._orbax.cancel()

    def _wait_for_orbax(self) -> None:
        try:
            self._orbax.close()
            self._finish()
        except Exception as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        """Whatever it is, the training goes on."""
        self._reason = short_reason(error)
        self._barrier.fail(self._reason)
        self._fail(self._reason)


def short_reason(error: BaseException) -> str:
    """What is at the bottom of an error, in a few words, such as "No space left on device"."""
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
    """What another process told."""


class _Barrier:
    """Where Orbax's processes wait for each other, in the background, between the phases of a commit.

    With Orbax's own the others wait for the time-out when one of them fails; here it tells them. A phase ends when
    every process has reached it or failed before it.
    """

    def __init__(self):
        self._number, self._phase, self._told = next(_numbers), 0, False
        if jax.process_count() > 1 and jax.process_index() == 0:
            # All processes have ended the save before this one's last.
            distributed.global_state.client.key_value_delete(f"spanbert_jax/saves/{self._number - 2}/")

    def __call__(self, *, key: str, timeout_ms: int) -> None:
        if jax.process_count() == 1:
            return
        deadline = time.monotonic() + timeout_ms / 1000
        self._tell(_REACHED)
        told = [distributed.global_state.client.blocking_key_value_get(
            self._key(process), max(1, int(1000 * (deadline - time.monotonic()))))
            for process in range(jax.process_count())]
        for process, words in enumerate(told):
            if words != _REACHED:
                raise _PeerFailed(f"process {process}: {words}")
        self._phase, self._told = self._phase + 1, False

    def fail(self, reason: str) -> None:
        """Tells the other processes that this one will not come."""
        if jax.process_count() > 1 and not self._told:
            self._tell(reason)

    def _tell(self, words: str) -> None:
        self._told = True
        distributed.global_state.client.key_value_set(self._key(jax.process_index()), words)

    def _key(self, process: int) -> str:
        return f"spanbert_jax/saves/{self._number}/{self._phase}/{process}"
