"""Training: configs, mesh and sharding, state, step, loop and evaluation."""
import importlib
from typing import Any

# Loaded when first asked for, so that checkpoints are listed without waiting for JAX.
_PUBLIC = {"RunResult": "run", "train": "run", "default_config": "config", "parse_argument": "config",
           "evaluate": "run_evaluation"}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
