"""Named tensors in files of any kind, read one at a time."""
from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from spanbert_jax.errors import UserError


class Tensors(Protocol):
    """The tensors of a file, or of several that belong together. Nothing is read before it is asked for.

    Attributes:
      path: what errors name: the file, or the directory.
      shapes: of the tensors, by name.
    """
    path: pathlib.Path
    shapes: Mapping[str, tuple[int, ...]]

    def read(self, name: str) -> np.ndarray:
        """One tensor, in the dtype that it is stored in.

        Raises:
          UserError: when it cannot be read, naming file and tensor.
        """


class Joined:
    """The tensors of several files, as of one."""

    def __init__(self, path: pathlib.Path, parts: Sequence[Tensors]):
        """Raises: UserError: when two parts hold a tensor of the same name."""
        self.path = path
        self._part_of: dict[str, Tensors] = {}
        for part in parts:
            for name in part.shapes:
                if name in self._part_of:
                    raise UserError(f"{part.path}: {name} is in {self._part_of[name].path} too; remove one of them")
                self._part_of[name] = part
        self.shapes = {name: part.shapes[name] for name, part in self._part_of.items()}

    def read(self, name: str) -> np.ndarray:
        """One tensor, in the dtype that it is stored in."""
        return self._part_of[name].read(name)


def join(path: pathlib.Path, parts: Sequence[Tensors]) -> Tensors:
    """The tensors of several files that belong together at `path`; of one file as they are."""
    return parts[0] if len(parts) == 1 else Joined(path, parts)
