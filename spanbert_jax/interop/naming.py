"""Tensors of weight files under the names of `architectures`, whatever their names in the files are."""
import copy
import dataclasses
import functools
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Self

import numpy as np

from spanbert_jax.common.errors import UserError
from spanbert_jax.interop.sources.tensors import MAX_LAYERS, Tensors

_LEAVES = {"kernel": "weight", "embedding": "weight", "scale": "weight", "bias": "bias"}


@dataclasses.dataclass(frozen=True)
class TensorNames:
    """Names of an architecture's tensors."""
    # Path of a module of ours -> name of its tensors without ".weight" and ".bias"; {} is the layer's number.
    modules: Mapping[str, str]
    prefix: str  # of the names of encoder and pooler in a model with a head
    ties: tuple[str, ...] = ()  # output layers that repeat the token embedding
    # Name -> another tensor that repeats it, and is read where it is missing.
    twins: Mapping[str, str] = dataclasses.field(default_factory=dict)
    optional: tuple[str, ...] = ()  # tensors that have no effect, and their initial values where they are missing
    ignored: tuple[str, ...] = ()  # tensors that are no parameters, as older versions of transformers store them

    @property
    def embedding(self) -> str:
        """The token embedding."""
        return self.tensor("encoder/embeddings/token", "embedding")

    def tensor(self, module: str, leaf: str) -> str:
        """Returns the tensor's name of a parameter, by module and leaf ("kernel", ...). Raises KeyError for others."""
        return f"{self.modules[module]}.{_LEAVES[leaf]}"

    def is_known(self, name: str) -> bool:
        """Whether a tensor of this name is a parameter of some model of ours."""
        module, _, leaf = re.sub(r"\.\d+\.", ".{}.", name, count=1).rpartition(".")
        return module in self.modules.values() and leaf in _LEAVES.values()


@dataclasses.dataclass(frozen=True)
class Stored:
    """A tensor as it is stored."""
    file: Tensors  # the file that it is in
    name: str  # its name in the file
    part: tuple[int, int] | None = None  # (index, count) of a part of fused tensors, on the leading axis, if any
    transposed: bool = False  # whether it is stored transposed, [in, out]
    skipped: int = 0  # rows at its start that the model does not have

    def __str__(self) -> str:
        return f"{self.file.path}: {self.name}"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor or its part. Raises UserError if it cannot be divided."""
        shape = tuple(self.file.shapes[self.name])
        shape = shape[::-1] if self.transposed else shape
        shape = (shape[0] - self.skipped, *shape[1:]) if self.skipped and shape else shape
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
        value = value[self.skipped:] if self.skipped else value
        return value if self.part is None else np.split(value, self.part[1])[self.part[0]]


# From the path of the files and their tensors to the tensors by the architecture's names.
Rename = Callable[[pathlib.Path, Sequence[Stored]], dict[str, Stored]]


class NamedTensors:
    """Tensors of one or more files, at `path`, under the `names` of an architecture."""

    def __init__(self, path: pathlib.Path, files: Sequence[Tensors], names: TensorNames, rename: Rename,
                 prefix: str = ""):
        """Names the tensors with `prefix`. Raises UserError for another architecture, or for two of the same name."""
        self.path, self.names = path, names
        stored = [Stored(file, name) for file in files for name in file.shapes if name.startswith(prefix)]
        self._entries = rename(path, stored)

    @functools.cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors, by name."""
        return {name: entry.shape for name, entry in self._entries.items()}

    def matrix(self, name: str) -> tuple[int, int]:
        """Shape of a tensor of two axes. Raises UserError if it is missing, or another one."""
        found = self.shapes.get(name)
        if found is None or len(found) != 2 or min(found) < 1:
            problem = "is missing" if found is None else f"is {list(found)}, which is no matrix"
            raise UserError(f"{self.path}: {name} {problem}; the file is incomplete, or of another model")
        return found[0], found[1]

    def count_layers(self, pattern: str) -> int:
        """The number of layers; `pattern` is as in `layer_numbers`. Raises UserError if one is missing."""
        numbers = layer_numbers(self.shapes, pattern)
        if not numbers or numbers[-1] != len(numbers) - 1:
            gap = next((number for number, found in enumerate(numbers) if number != found), len(numbers))
            raise UserError(f"{self.path}: layer {gap} is missing"
                            f"{f', and layer {numbers[-1]} is there' if numbers else ''}; the file is incomplete")
        if len(numbers) > MAX_LAYERS:
            raise UserError(f"{self.path}: {len(numbers):,} layers; {MAX_LAYERS:,} are the most")
        return len(numbers)

    def without(self, module: str) -> Self:
        """A copy without the tensors of a module of ours, such as "classification_head"."""
        others, prefix = copy.copy(self), f"{self.names.modules[module]}."
        others._entries = {name: entry for name, entry in self._entries.items() if not name.startswith(prefix)}
        others.__dict__.pop("shapes", None)
        return others

    def read(self, name: str) -> np.ndarray:
        """Returns a tensor, in the dtype that it is stored in."""
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
        """Raises UserError unless output layers repeat the token embedding, as ours do, except for rows of padding."""
        embedding = self.names.embedding
        for tie in self.names.ties:
            if self._entries.get(tie, self._entries[embedding]) == self._entries[embedding]:
                continue
            rows = min(self.shapes[tie][0], self.shapes[embedding][0])
            if not np.array_equal(self.read(tie)[:rows], self.read(embedding)[:rows], equal_nan=True):
                raise UserError(f"{self.where(tie)} differs from {self._entries[embedding].name}; only models whose "
                                "output layer repeats the token embedding can be read")


def layer_numbers(names: Iterable[str], pattern: str) -> list[int]:
    """The numbers of layers in names of tensors, in order: the first group of `pattern`, which a name begins with."""
    return sorted({int(match[1]) for name in names if (match := re.match(pattern, name))})
