"""Speed of training."""
from __future__ import annotations

from collections.abc import Callable


class Timer:
    """Measures updates, tokens and time since the last reset."""

    def __init__(self, spent: Callable[[], float]):
        """Args: spent: returns the seconds spent in updates so far."""
        self._spent = spent
        self.reset()

    def reset(self) -> None:
        """Starts a new measurement."""
        self._since, self._laps, self._tokens = self._spent(), 0, 0.0

    def lap(self, tokens: float) -> None:
        """Counts an update with its number of tokens."""
        self._laps += 1
        self._tokens += tokens

    def speeds(self, flops: float) -> dict[str, float]:
        """Speeds over the counted updates of `flops` operations each."""
        seconds = max(self._spent() - self._since, 1e-9)
        return {"seconds_per_step": seconds / self._laps, "tokens_per_second": self._tokens / seconds,
                "model_flops_per_second": flops * self._laps / seconds}
