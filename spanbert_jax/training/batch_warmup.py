"""A batch that grows at the start of a run, by whole parts, so that the shapes of the step stay the same."""
import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from spanbert_jax.corpus import RowOrder


@dataclasses.dataclass(frozen=True)
class BatchWarmup:
    """How many of its parts (`train.accumulation`) a batch uses: one at first, then 2, 3, ..., for equally many steps.

    ModernBERT's batch grows like this (Warner et al., 2024). Steps are counted from 0.
    """
    parts: int = 1  # of a full batch
    steps: int = 0  # with a smaller batch; 0 for none

    @property
    def _increases(self) -> list[int]:
        """The steps from which one more part is used, ascending."""
        return [-(-part * self.steps // (self.parts - 1)) for part in range(1, self.parts)]

    def used(self, step: int) -> int:
        """Parts that a step uses."""
        return 1 + sum(step >= increase for increase in self._increases)

    def used_in_jit(self, step: jax.Array) -> jax.Array:
        """The same for a step inside a jitted function."""
        return 1 + jnp.sum(step >= jnp.asarray(self._increases))

    def used_before(self, step: int) -> int:
        """Parts that all earlier steps have used."""
        return step + sum(max(0, step - increase) for increase in self._increases)

    def steps_of(self, batches: float) -> float:
        """Steps from the start of the run that use as much data as so many full batches."""
        left, before = batches * self.parts, 0
        for used, increase in enumerate(self._increases, 1):
            if left <= used * (increase - before):
                return before + left / used
            left, before = left - used * (increase - before), increase
        return before + left / self.parts


FULL_BATCH = BatchWarmup()  # a batch that does not grow


def batch_indices(order: RowOrder, warmup: BatchWarmup, batch_size: int) -> Callable[[int], np.ndarray]:
    """The row numbers of each step's batch, in which the parts that a step does not use repeat one of its rows.

    Every row of the order is used once an epoch: a step continues where the rows of the step before end.

    Args: batch_size: rows of a full batch; row r belongs to part r mod parts.
    """
    def indices(step: int) -> np.ndarray:
        rows, used = batch_size // warmup.parts, warmup.used(step)
        numbers = order.row_numbers(warmup.used_before(step) * rows, used * rows)
        batch = np.full((rows, warmup.parts), numbers[0])
        batch[:, :used] = numbers.reshape(rows, used)
        return batch.reshape(-1)

    return indices if warmup.steps else order.indices
