"""Durations within a run in any unit: "10k steps", "3 epochs", "20B tokens", "5e6 examples", "10 percent"."""
import dataclasses
import re
from collections.abc import Callable

from spanbert_jax.common.errors import UserError

_SUFFIXES = {"": 1.0, "k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
_PATTERN = re.compile(r"\s*((?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,2})?)\s*([kMBT]?)\s*"
                      r"(steps?|epochs?|tokens?|examples?|percent|%)?\s*")


def parse_duration(field: str, duration: str, whole: bool = True) -> int:
    """Steps of a duration in a run of one step over one row of one token; to check it before a run's size is known.

    Percentages are only allowed of a `whole` run. Raises UserError, which names `field`, if it cannot be read.
    """
    return RunSize(batch_size=1, length=1, rows=1, total_steps=1 if whole else None).steps(field, duration)


@dataclasses.dataclass(frozen=True)
class RunSize:
    """Converts durations to steps. A step is batch_size x length tokens, padding included, as "256 x 512" in papers."""
    batch_size: float  # rows in a step; or examples in a step, on average if rows hold several
    length: float  # tokens in a row
    rows: int  # rows, or examples, in an epoch
    total_steps: int | None = None  # of the run, for percentages; None while it is not known

    def steps(self, field: str, duration: str, steps_of: Callable[[float], float] = lambda batches: batches) -> int:
        """Steps in a duration, rounded, at least 1; 0 for zero. Raises UserError, naming `field`, if it is not one.

        Args: steps_of: steps that use as much data as so many full batches.
        """
        match = _PATTERN.fullmatch(duration)
        if not match:
            raise UserError(f"{field}={duration!r}: not a duration; write a number and a unit, such as "
                            "'10k steps', '3 epochs', '20B tokens', '5e6 examples' or '10 percent'")
        amount = float(match[1]) * _SUFFIXES[match[2]]
        unit = (match[3] or "steps").rstrip("s")
        if unit in ("percent", "%"):
            if self.total_steps is None:
                raise UserError(f"{field}={duration!r}: a percentage of the run is not possible here; give steps, "
                                "epochs, tokens or examples")
            steps = amount / 100 * self.total_steps
        else:
            per_step = {"step": 1.0, "epoch": self.batch_size / max(self.rows, 1),
                        "token": self.batch_size * self.length, "example": self.batch_size}[unit]
            steps = amount if unit == "step" else steps_of(amount / per_step)
        return max(1, round(steps)) if amount else 0
