"""The interface of named tensors in files of any format, read one at a time."""
from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Protocol

import numpy as np


class Tensors(Protocol):
    """The tensors of a file or of a checkpoint. Each is read when it is needed.

    Attributes:
      path: of the file, for error messages.
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
