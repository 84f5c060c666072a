"""Feeds batches of rows to the devices; every process reads only the rows of its own devices."""
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from spanbert_jax.corpus import Rows, batches
from spanbert_jax.training.mesh import Rules, batch_sharding
from spanbert_jax.training.workload import Batch


class DeviceBatch(NamedTuple):
    """A batch on the devices."""
    number: int  # as counted by the caller
    indices: np.ndarray  # [B] row numbers
    arrays: Batch  # [B, ...] by name, split over the data axes


def device_batches(source: Rows, indices: Callable[[int], np.ndarray], numbers: range, mesh: Mesh,
                   rules: Rules) -> Generator[DeviceBatch, None, None]:
    """Yields batches on the devices in order; threads read ahead until it is closed. A damaged row raises UserError.

    Args:
      indices: from the number of a batch to its row numbers [B]; B is the same for all batches.
      numbers: the batches to yield.
    """
    if not numbers:
        return
    sharding = batch_sharding(mesh, rules)
    size = len(indices(numbers[0]))
    local = local_batch_indices(sharding, size)
    for number, row_numbers, arrays in batches(source, indices, numbers, local):
        yield DeviceBatch(number, row_numbers, {
            name: global_array(sharding, values, local, size) for name, values in arrays.items()})


def local_batch_indices(sharding: NamedSharding, batch_size: int) -> np.ndarray:
    """[R] ascending positions in a batch of the rows that this process's devices hold."""
    held = np.zeros(batch_size, bool)
    for index in sharding.addressable_devices_indices_map((batch_size,)).values():
        held[index] = True
    return np.flatnonzero(held)


def global_array(sharding: NamedSharding, rows: np.ndarray, batch_indices: np.ndarray, batch_size: int) -> jax.Array:
    """One array [B, ...] of a batch over all devices, from the rows that this process has read.

    Args:
      rows: [R, ...] the rows at `batch_indices` of the batch.
      batch_indices: [R] as `local_batch_indices` returns them.
      batch_size: B, rows of the whole batch.
    """
    def shard(index: Any) -> np.ndarray:
        first, end, _ = index[0].indices(batch_size)
        start = np.searchsorted(batch_indices, first)
        return rows[start:start + end - first]

    return jax.make_array_from_callback((batch_size, *rows.shape[1:]), sharding, shard)
