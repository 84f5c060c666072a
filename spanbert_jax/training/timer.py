"""Speed of the updates."""
from __future__ import annotations

from collections.abc import Callable


class Timer:
    """Updates since the last reset, the tokens that went through and the time that they took."""

    def __init__(self, spent: Callable[[], float]):
        """Starts. Args: spent: seconds spent in updates so far."""
        self._spent = spent
        self.reset()

    def reset(self) -> None:
        """Begins anew."""
        self._since, self._laps, self._tokens = self._spent(), 0, 0.0

    def lap(self, tokens: float) -> None:
        """Counts an update."""
        self._laps += 1
        self._tokens += tokens

    def speeds(self, flops: float) -> dict[str, float]:
        """Speeds of the updates lapped, each of `flops` operations."""
        seconds = max(self._spent() - self._since, 1e-9)
        return {"seconds_per_step": seconds / self._laps, "tokens_per_second": self._tokens / seconds,
                "model_flops_per_second": flops * self._laps / seconds}
