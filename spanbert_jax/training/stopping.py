"""Stopping a run between two steps instead of inside one."""
from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """True once the first SIGINT or SIGTERM has come; a second one acts as if this were not here.

    A context manager. Outside the main thread, where Python takes no signals, it stays false.
    """

    def __init__(self):
        self._requested = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._request) for number in _SIGNALS}
        return self

    def __exit__(self, *exception: Any) -> None:
        self._restore()

    def __bool__(self) -> bool:
        return self._requested

    def _request(self, number: int, frame: FrameType | None) -> None:
        self._requested = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
