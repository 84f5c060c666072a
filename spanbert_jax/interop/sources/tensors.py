"""The interface of named tensors in files of any format, read one at a time."""
import math
import pathlib
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.json_files import shown

# What a file of any format may ask for. The largest published encoders have 48 layers and 1,000 tensors.
MAX_LAYERS = 1000
MAX_TENSORS = 20_000
MAX_NAME = 500  # characters
MAX_AXES = 8
# More numbers than bytes: a file may store tensors that are equal, such as tied embeddings, once.
MAX_NUMBERS_PER_BYTE = 2


def check_count(path: pathlib.Path, count: int) -> None:
    """Raises UserError if there are more tensors than any model has."""
    if count > MAX_TENSORS:
        raise UserError(f"{path}: {count:,} tensors; {MAX_TENSORS:,} are the most")


def check_shapes(path: pathlib.Path, shapes: Mapping[str, tuple[int, ...]], size: int) -> None:
    """Raises UserError if tensors are too many or too large for a file.

    Args:
      shapes: by name, as the file states them, unchecked.
      size: bytes of the file, with those of others that belong to it.
    """
    check_count(path, len(shapes))
    numbers = 0
    for name, shape in shapes.items():
        if len(name) > MAX_NAME:
            raise UserError(f"{path}: {shown(name)}: a name of {len(name):,} characters; {MAX_NAME} are the most")
        if len(shape) > MAX_AXES:
            raise UserError(f"{path}: {shown(name)} has {len(shape):,} axes; {MAX_AXES} are the most")
        if not all(type(length) is int and length >= 0 for length in shape):
            raise UserError(f"{path}: {shown(name)} is {shown(list(shape))}; the lengths of axes are whole numbers "
                            "from 0 on")
        numbers += math.prod(max(1, length) for length in shape)  # an empty axis must not hide a long one
        if numbers > MAX_NUMBERS_PER_BYTE * size:
            raise UserError(f"{path}: {shown(name)} is {shown(list(shape))}, which the {size:,} bytes of the file "
                            "cannot hold; fetch it again")


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
