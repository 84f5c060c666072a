"""Checkpoints: saved by Orbax, with checksums written on save and verified on restore.

`folder`, `manifest` and `retention` import neither JAX nor Orbax.
"""
import importlib
from typing import Any

from spanbert_jax.checkpoints.folder import FOLDER

__all__ = ["FOLDER", "Checkpointer"]


def __getattr__(name: str) -> Any:
    # Imported on first use, so that checkpoints can be listed without importing JAX.
    if name != "Checkpointer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module("spanbert_jax.checkpoints.checkpointer").Checkpointer
