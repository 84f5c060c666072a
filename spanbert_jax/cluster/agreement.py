"""Small values that the processes of a run exchange between steps. With one process there is no communication."""
import json
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


def is_process_zero() -> bool:
    """Returns whether this is process 0, which writes files and messages for all."""
    return jax.process_index() == 0


def any_process(flag: bool) -> bool:
    """Returns whether the flag is set on any process. Every process must call this; all get the same result."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def gather(array: jax.Array) -> np.ndarray:
    """Returns an array that is split over the devices of all processes. Every process must call this."""
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def broadcast_from_zero(value: Any) -> Any:
    """Returns the value of process 0, which must be JSON values, on every process. Every process must call this."""
    if jax.process_count() == 1:
        return value
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.asarray(len(text))))
    buffer = np.zeros(size, np.uint8)
    if is_process_zero():
        buffer[:] = text
    return json.loads(multihost_utils.broadcast_one_to_all(buffer).tobytes())
