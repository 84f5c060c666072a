"""The interface of named tensors in files of any format, read one at a time."""
import pathlib
from collections.abc import Mapping
from typing import Protocol

import numpy as np


class Tensors(Protocol):
    """The tensors of a file or of a checkpoint: its path, and shapes by name. Each is read when it is needed."""
    @property
    def path(self) -> pathlib.Path: ...
    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]: ...

    def read(self, name: str) -> np.ndarray:
        """Returns a tensor, perhaps a view, in the dtype that it is stored in. Raises UserError if it is unreadable."""


class LocatedTensors(Tensors, Protocol):
    """Tensors that know where each one is stored."""

    def where(self, name: str) -> str:
        """Returns file and stored name of a tensor, for errors."""
