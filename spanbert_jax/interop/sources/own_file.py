"""Files of parameters in our own layout, as Hugging Face's tensors."""
from __future__ import annotations

import functools

import numpy as np

from spanbert_jax.common.errors import UserError
from spanbert_jax.interop.layout import leaf_of
from spanbert_jax.interop.sources.tensors import Tensors


class OwnFile:
    """The tensors in a file whose names are paths of parameters, such as encoder/layers/attention/query/kernel."""

    def __init__(self, file: Tensors):
        """Raises: UserError: when a name is none of a parameter."""
        self.path, self._file = file.path, file
        self._where, self.shapes = {}, {}
        for name, shape in file.shapes.items():
            try:
                # The config says how many rows of a vocabulary are padding; here all of them count.
                leaf = leaf_of(tuple(name.split("/")), shape, vocab_size=shape[0])
            except (KeyError, IndexError):
                raise UserError(f"{file.path}: {name} is no parameter of the network; export it again") from None
            for index, tensor in enumerate(leaf.names):
                self._where[tensor] = leaf, index
                self.shapes[tensor] = leaf.tensor_shape
        # The layers of a parameter are asked for one after the other.
        self._read = functools.lru_cache(1)(file.read)

    def read(self, name: str) -> np.ndarray:
        """One tensor."""
        leaf, index = self._where[name]
        return leaf.place(index, self._read("/".join(leaf.path)))
