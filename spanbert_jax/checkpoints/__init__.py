"""Checkpoints: saved by Orbax, with checksums written on save and verified on restore.

`folder`, `manifest` and `retention` import neither JAX nor Orbax.
"""
import contextlib
import pathlib
from typing import Any

from spanbert_jax.checkpoints.folder import FOLDER, remove_all

__all__ = ["FOLDER", "Checkpointer", "remove_checkpoints"]


def remove_checkpoints(workdir: pathlib.Path) -> None:
    """Deletes the checkpoints of a finished run, as far as possible, except those that were set aside."""
    with contextlib.suppress(OSError):  # those of another user stay
        remove_all(workdir / FOLDER)


def __getattr__(name: str) -> Any:
    if name != "Checkpointer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Imported on first use, so that checkpoints can be listed without importing JAX.
    from spanbert_jax.checkpoints.checkpointer import Checkpointer
    return Checkpointer
