"""Stopping a run where nothing is lost: at once while it prepares, between two steps while it trains."""
from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TypeVar

Result = TypeVar("Result")

# SIGALRM is the time limit's.
_SIGNALS = {signal.SIGINT: "SIGINT", signal.SIGTERM: "SIGTERM", signal.SIGALRM: "the time limit"}
_POLL_SECONDS = 0.1


class Stopped(BaseException):
    """A stop was asked for where nothing is left to be saved. No `except Exception` keeps it from ending the call."""


class StopRequest:
    """True once SIGINT, SIGTERM or the time limit has come. A second signal ends the process at once.

    A context manager. Inside it a request raises `Stopped` wherever the program stands; inside `deferred()` it is only
    noted, to be looked at between two steps. Outside the main thread, where Python takes no signals, it stays false.
    """

    def __init__(self, time_limit: float = 0):
        """Args: time_limit: seconds from entering after which to stop; 0 for none."""
        self.reason = ""
        self._time_limit = time_limit
        self._deferred = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._request) for number in _SIGNALS}
            signal.setitimer(signal.ITIMER_REAL, self._time_limit)
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._previous:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in self._previous.items():
                signal.signal(number, handler)

    def __bool__(self) -> bool:
        return bool(self.reason)

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
        self.reason = self.reason or _SIGNALS[number]
        if number != signal.SIGALRM:
            # Not Python's handlers, which wait for a library to return: a second signal ends the process at once.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if not self._deferred:
            raise Stopped(self.reason)
