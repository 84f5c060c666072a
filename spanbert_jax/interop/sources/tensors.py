"""Named tensors in files of any kind, read one at a time."""
from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Protocol

import numpy as np


class Tensors(Protocol):
    """The tensors of a file, or of the checkpoint of a run. Nothing is read before it is asked for.

    Attributes:
      path: what errors name.
      shapes: of the tensors, by name.
    """
    @property
    def path(self) -> pathlib.Path: ...
    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]: ...

    def read(self, name: str) -> np.ndarray:
        """One tensor, in the dtype that it is stored in.

        Raises:
          UserError: when it cannot be read, naming file and tensor.
        """


class LocatedTensors(Tensors, Protocol):
    """Tensors that know where each one is stored."""

    def where(self, name: str) -> str:
        """File and stored name of a tensor, for errors."""
