"""Files of parameters in our own layout, read as Hugging Face's tensors."""
from __future__ import annotations

import functools

import numpy as np

from spanbert_jax.common.errors import UserError
from spanbert_jax.interop.architectures import TensorNames
from spanbert_jax.interop.layout import leaf_of
from spanbert_jax.interop.sources.tensors import Tensors


class OwnFile:
    """The tensors of a file whose names are paths of parameters, such as encoder/layers/attention/query/kernel."""

    def __init__(self, file: Tensors, names: TensorNames):
        """Finds the tensors, under the names of an architecture.

        Raises:
          UserError: a name is not that of a parameter.
        """
        self.path, self._file = file.path, file
        self._where, self.shapes = {}, {}
        for name, shape in file.shapes.items():
            try:
                # The config gives the size of the vocabulary; here padding counts too.
                leaf = leaf_of(tuple(name.split("/")), shape, shape[0], names)
            except (KeyError, IndexError):
                raise UserError(f"{file.path}: {name} is not a parameter of the model; export it again") from None
            for index, tensor in enumerate(leaf.names):
                self._where[tensor] = leaf, index
                self.shapes[tensor] = leaf.tensor_shape
        # The layers of a parameter are read one after the other.
        self._read = functools.lru_cache(1)(file.read)

    def read(self, name: str) -> np.ndarray:
        """One tensor."""
        leaf, index = self._where[name]
        return leaf.slot(index, self._read("/".join(leaf.path)))
