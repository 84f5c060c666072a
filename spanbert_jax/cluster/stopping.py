"""Stopping a run where nothing is lost: at once while it prepares, between two steps while it trains."""
from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TypeVar

Result = TypeVar("Result")

# SIGALRM is the time limit's.
_SIGNALS = {signal.SIGINT: "SIGINT", signal.SIGTERM: "SIGTERM", signal.SIGALRM: "the time limit"}
_POLL_SECONDS = 0.1
# A library may swallow what a signal raises inside it, as garbage collection does: then it is raised again. Long enough
# for what is cleaned up on the way out.
_AGAIN_SECONDS = 5.0

# Entered and not left, outermost first.
_entered: list["StopRequest"] = []


class Stopped(BaseException):
    """A stop was asked for where nothing is left to be saved. No `except Exception` keeps it from ending the call."""


class StopRequest:
    """True once SIGINT, SIGTERM or the time limit has come. A second signal ends the process at once; under Slurm a
    second SIGTERM does not.

    A context manager. Inside it a request raises `Stopped` wherever the program stands; inside `deferred()` it is only
    noted, to be looked at between two steps. One inside another takes over what the outer one has noted. Outside the
    main thread, where Python takes no signals, it hears of the time limit alone, and only where it is looked at.
    """

    def __init__(self, time_limit: float = 0):
        """Args: time_limit: seconds from entering after which to stop; 0 for none."""
        self._reason = ""
        self._deadline = time.monotonic() + time_limit if time_limit else float("inf")
        self._deferred = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            if _entered and _entered[-1]:
                raise Stopped(_entered[-1].reason)
            self._previous = {number: signal.signal(number, self._request) for number in _SIGNALS}
            _entered.append(self)
            self._set_alarm()
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._previous:
            _entered.remove(self)
            for number, handler in self._previous.items():
                signal.signal(number, handler)
            _entered[-1]._set_alarm() if _entered else signal.setitimer(signal.ITIMER_REAL, 0)

    def __bool__(self) -> bool:
        return bool(self.reason)

    @property
    def reason(self) -> str:
        """Why to stop, in words; empty as long as there is no reason."""
        if not self._reason and time.monotonic() >= self._deadline:
            self._reason = _SIGNALS[signal.SIGALRM]
        return self._reason

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Where a request waits to be looked at."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def interruptible(self, function: Callable[[], Result]) -> Result:
        """What a long call into a library returns that looks at no signal, such as compilation.

        Raises:
          Stopped: on a request, while the call goes on by itself: the process must end without waiting for it.
        """
        outcome: list[Any] = []

        def call() -> None:
            try:
                outcome.append((function(), None))
            except BaseException as error:  # raised again by the caller
                outcome.append((None, error))

        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(_POLL_SECONDS)
            if self and thread.is_alive():
                raise Stopped(self.reason)
        result, error = outcome[0]
        if error:
            raise error
        return result

    def _request(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGALRM and not self:  # a hair early, or that of another one
            self._set_alarm()
            return
        self._reason = self._reason or _SIGNALS[number]
        if number != signal.SIGALRM:
            # Not Python's handlers, which wait for a library to return: a second signal ends the process at once. But
            # Slurm sends SIGTERM twice within milliseconds, itself and through srun, and means one; it ends by SIGKILL.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_IGN if "SLURM_STEP_ID" in os.environ else signal.SIG_DFL)
        if not self._deferred:
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
            raise Stopped(self.reason)

    def _set_alarm(self) -> None:
        """Has the time limit, if there is one, come as a signal."""
        left = self._deadline - time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0 if left == float("inf") else max(left, 1e-6))
