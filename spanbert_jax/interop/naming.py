"""Tensors of weight files under the names of `architectures`, whatever their names in the files are."""
from __future__ import annotations

import copy
import dataclasses
import functools
import pathlib
from collections.abc import Sequence

import numpy as np

from spanbert_jax.common.errors import UserError
from spanbert_jax.interop.architectures import Conversion
from spanbert_jax.interop.sources.tensors import Tensors


@dataclasses.dataclass(frozen=True)
class Stored:
    """A tensor as it is stored.

    Attributes:
      file: the file that it is in.
      name: its name in the file.
      part: (index, count) of a part of its leading axis, if several tensors are fused in it; None for all of it.
      transposed: whether it is stored transposed, [in, out].
    """
    file: Tensors
    name: str
    part: tuple[int, int] | None = None
    transposed: bool = False

    def __str__(self) -> str:
        return f"{self.file.path}: {self.name}"

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape, or that of its part.

        Raises:
          UserError: it has no such parts.
        """
        shape = tuple(self.file.shapes[self.name])
        shape = shape[::-1] if self.transposed else shape
        if self.part is None:
            return shape
        count = self.part[1]
        if not shape or shape[0] % count:
            raise UserError(f"{self} is {list(self.file.shapes[self.name])}; {count} projections in one tensor need an "
                            f"axis of outputs that divides by {count}")
        return (shape[0] // count, *shape[1:])

    def read(self) -> np.ndarray:
        """The tensor, or its part, in the dtype that it is stored in."""
        value = self.file.read(self.name)
        value = value.T if self.transposed else value
        return value if self.part is None else np.split(value, self.part[1])[self.part[0]]


class NamedTensors:
    """Tensors of one or more files under the names of an architecture.

    Attributes:
      path: of the file or directory.
      names: the architecture's names.
    """

    def __init__(self, path: pathlib.Path, files: Sequence[Tensors], conversion: Conversion, prefix: str = ""):
        """Finds the names.

        Args:
          path: of the file or directory.
          files: with the tensors.
          conversion: of the architecture.
          prefix: tensors whose names do not start with it are ignored.

        Raises:
          UserError: the tensors are of another architecture, or two of them have the same name.
        """
        self.path, self.names = path, conversion.names
        stored = [Stored(file, name) for file in files for name in file.shapes if name.startswith(prefix)]
        self._entries = conversion.rename(path, stored)

    @functools.cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors by name."""
        return {name: entry.shape for name, entry in self._entries.items()}

    def without(self, module: str) -> NamedTensors:
        """A copy without the tensors of a module of ours, such as "classification_head"."""
        others, prefix = copy.copy(self), f"{self.names.modules[module]}."
        others._entries = {name: entry for name, entry in self._entries.items() if not name.startswith(prefix)}
        others.__dict__.pop("shapes", None)
        return others

    def read(self, name: str) -> np.ndarray:
        """One tensor, in the dtype that it is stored in."""
        return self._entries[name].read()

    def where(self, name: str) -> str:
        """File and stored name of a tensor, for errors."""
        return str(self._entries[name])

    def foreign(self) -> list[str]:
        """Stored names of tensors that no model of ours has, such as those of another head."""
        names = self.names
        ignored = {*names.ties, *names.twins.values(), *names.ignored}
        return [entry.name for name, entry in self._entries.items() if not (names.is_known(name) or name in ignored)]

    def check_ties(self) -> None:
        """Checks that output layers repeat the token embedding, except for rows of padding.

        Raises:
          UserError: naming one that does not; models here have one embedding for both.
        """
        embedding = self.names.embedding
        for tie in self.names.ties:
            if self._entries.get(tie, self._entries[embedding]) == self._entries[embedding]:
                continue
            rows = min(self.shapes[tie][0], self.shapes[embedding][0])
            if not np.array_equal(self.read(tie)[:rows], self.read(embedding)[:rows], equal_nan=True):
                raise UserError(f"{self.where(tie)} differs from {self._entries[embedding].name}; only models whose "
                                "output layer repeats the token embedding can be read")
