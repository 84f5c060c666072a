"""What a run learns. The loop knows no more of pretraining, or of any task, than this."""
from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from spanbert_jax.training.objective import Objective

# Calls a jitted function, compiling it first if need be.
Call = Callable[..., Any]


class Rows(Protocol):
    """Random access to rows; safe to use from several threads."""

    def __len__(self) -> int: ...

    def rows(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The rows of given numbers [B]: arrays [B, ...] by name, "segments" [B, S] among them, 0 for padding; all of a
        row -1 is padding, where there is any."""


class Workload(Protocol):
    """Rows to learn from, an objective over them, and how good a network has become.

    Attributes:
      objective: what a step minimises.
      rows_per_step: B, over all devices.
      padding_rows: rows of padding that a batch has besides, so that it divides over the devices.
      length: S, positions in a row.
      flops: model floating-point operations of a step.
      identity: what the rows and, under "tokenizer", the ids in them are; a checkpoint remembers it.
      metric: the figure by which the best state is chosen, higher is better; "" where none is.
      can_evaluate: whether there are held-out rows.
    """
    objective: Objective
    rows_per_step: int
    padding_rows: int
    length: int
    flops: float
    identity: dict[str, Any]
    metric: str
    can_evaluate: bool

    def open_rows(self) -> Rows:
        """The rows to train on."""

    def initial_params(self) -> Any | None:
        """What the parameters begin with, on the host; None for fresh ones."""

    def evaluate(self, params: Any, call: Call, stop: Callable[[], bool | None]) -> dict[str, Any] | None:
        """Figures of parameters on held-out rows; None if `stop`, asked after each batch, has ended it."""

    def words(self, figures: Mapping[str, Any]) -> str:
        """An evaluation in a line."""

    def introduction(self) -> list[str]:
        """What is learned from, in words; the first stands beside the parameters and the mesh."""

    def furnish(self, workdir: pathlib.Path) -> None:
        """Puts into a workdir what the run's products need besides its config."""
