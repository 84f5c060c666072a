"""What the processes of a run tell each other between steps. With one process all of it is free."""
from __future__ import annotations

import json
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


def is_process_zero() -> bool:
    """Whether this process is the one that writes what one should write."""
    return jax.process_index() == 0


def any_process(flag: bool) -> bool:
    """Whether the flag is set on any process. Every process must ask, and all get the same answer."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def broadcast_from_zero(value: Any) -> Any:
    """The first process's value, which JSON can hold, on every process. Every process must ask."""
    if jax.process_count() == 1:
        return value
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.asarray(len(text))))
    buffer = np.zeros(size, np.uint8)
    if is_process_zero():
        buffer[:] = text
    return json.loads(multihost_utils.broadcast_one_to_all(buffer).tobytes())
