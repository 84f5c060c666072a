"""Time spent in updates."""
from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator


class Timer:
    """Time spent in updates since the last reset, without pauses, and the tokens that went through.

    Attributes:
      laps_ever: updates lapped since it was made.
    """

    def __init__(self):
        """Starts."""
        self.laps_ever = 0
        self.reset()

    def reset(self) -> None:
        """Begins anew."""
        self._since, self._laps, self._tokens = time.monotonic(), 0, 0.0

    def lap(self, tokens: float) -> None:
        """Counts an update."""
        self.laps_ever += 1
        self._laps += 1
        self._tokens += tokens

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Leaves out what is done inside."""
        began = time.monotonic()
        yield
        self._since += time.monotonic() - began

    def speeds(self, flops: float) -> dict[str, float]:
        """Speeds of the updates lapped, each of `flops` operations."""
        seconds = max(time.monotonic() - self._since, 1e-9)
        return {"seconds_per_step": seconds / self._laps, "tokens_per_second": self._tokens / seconds,
                "model_flops_per_second": flops * self._laps / seconds}
