"""The training engine: mesh and sharding, state, step, loop and checkpoints of a run, whatever its workload."""
import importlib
import warnings
from typing import Any

_MOVED = ("default_config", "evaluate", "parse_argument", "train")  # old config files import these from here


def __getattr__(name: str) -> Any:
    if name not in _MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(f"{__name__}.{name} is now spanbert_jax.{name}", DeprecationWarning, stacklevel=2)
    return getattr(importlib.import_module("spanbert_jax"), name)
