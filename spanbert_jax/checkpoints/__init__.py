"""Checkpoints: saved by Orbax, with checksums written on save and verified on restore.

`folder`, `manifest` and `retention` import neither JAX nor Orbax.
"""
from typing import Any

from spanbert_jax.checkpoints.folder import FOLDER

__all__ = ["FOLDER", "Checkpointer"]


def __getattr__(name: str) -> Any:
    if name != "Checkpointer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Imported on first use, so that checkpoints can be listed without importing JAX.
    from spanbert_jax.checkpoints.checkpointer import Checkpointer
    return Checkpointer
