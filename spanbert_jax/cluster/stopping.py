"""Stopping a run without losing work: at once while it prepares, between two steps while it trains."""
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Self, TypeVar

Result = TypeVar("Result")

# Signals that ask for a stop. A terminal sends SIGHUP when it is closed, as does a lost connection.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_TIME_LIMIT = "the time limit"  # signalled by SIGALRM
_POLL_SECONDS = 0.1
# A library may swallow an exception that a signal handler raises inside it, as garbage collection does. Then it is
# raised again after this time, which is long enough for normal cleanup.
_REPEAT_SECONDS = 5.0

# Requests in use, outermost first.
_entered: list["StopRequest"] = []


class Stopped(BaseException):
    """A stop was requested where nothing needs to be saved. `except Exception` does not catch it."""


class StopRequest:
    """A request to stop: true after SIGINT, SIGTERM, SIGHUP or the time limit.

    A context manager. Inside it, a request raises `Stopped` at once; inside `deferred()` it only sets the request,
    which the program checks between two steps. A nested StopRequest takes over a request of the outer one. A second
    signal ends the process at once, except a second SIGTERM under Slurm, and SIGHUP, which shells and services send in
    addition. If SIGHUP is ignored, as under `nohup`, it stays so. Outside the main thread, where Python handles no
    signals, only the time limit counts, and only when the request is checked.
    """

    def __init__(self, time_limit: float = 0):
        """Creates a request that becomes true after `time_limit` seconds; 0 for no limit."""
        self._reason = ""
        self._deadline = time.monotonic() + time_limit if time_limit else float("inf")
        self._deferred = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            if _entered and _entered[-1]:
                raise Stopped(_entered[-1].reason)
            ignored = (signal.SIGHUP,) * (signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)
            self._previous = {number: signal.signal(number, self._request) for number in (*SIGNALS, signal.SIGALRM)
                              if number not in ignored}
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
        """Name of the signal or limit that requested the stop; empty without a request."""
        if not self._reason and time.monotonic() >= self._deadline:
            self._reason = _TIME_LIMIT
        return self._reason

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside this context a request raises nothing; the program checks it."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def interruptible(self, function: Callable[[], Result]) -> Result:
        """Runs a long library call that does not react to signals, such as compilation, and returns its result.

        Raises:
          Stopped: on a request. The call continues in its thread; the process must end without waiting for it.
        """
        outcome: list[Any] = []

        def call() -> None:
            try:
                outcome.append((function(), None))
            except BaseException as error:  # raised again in the calling thread
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
        if number == signal.SIGALRM and not self:  # slightly early, or the alarm of another request
            self._set_alarm()
            return
        self._reason = self._reason or (_TIME_LIMIT if number == signal.SIGALRM else signal.Signals(number).name)
        if number != signal.SIGALRM:
            # The system's default handlers: a second signal ends the process at once, where Python's handlers would
            # wait for a library call. But Slurm sends SIGTERM twice within milliseconds, directly and through srun, and
            # means one stop; it uses SIGKILL to end a process.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_IGN if "SLURM_STEP_ID" in os.environ else signal.SIG_DFL)
        if not self._deferred:
            signal.setitimer(signal.ITIMER_REAL, _REPEAT_SECONDS)
            raise Stopped(self.reason)

    def _set_alarm(self) -> None:
        left = self._deadline - time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0 if left == float("inf") else max(left, 1e-6))
