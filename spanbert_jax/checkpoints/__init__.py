"""Checkpoints: Orbax writes them; here they are vouched for, verified before they are believed, kept and set aside.

`folder`, `manifest` and `retention` know neither JAX nor Orbax.
"""
import importlib
from typing import Any

from spanbert_jax.checkpoints.folder import FOLDER

__all__ = ["FOLDER", "Checkpointer"]


def __getattr__(name: str) -> Any:
    # Loaded when first asked for, so that checkpoints are listed without waiting for JAX.
    if name != "Checkpointer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module("spanbert_jax.checkpoints.checkpointer").Checkpointer
