"""The tensors of transformers' Flax models: flax_model.msgpack."""
import pathlib

import flax.serialization
import flax.traverse_util
import numpy as np

from spanbert_jax.common.errors import UserError

_LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}


class FlaxFile:
    """The tensors of a file by PyTorch's names and in its layouts. Implements the protocol `Tensors`."""

    def __init__(self, path: pathlib.Path) -> None:
        """Reads the file. Raises UserError if it is damaged."""
        self.path, self._tensors = path, dict[str, np.ndarray]()
        try:
            tree = flax.serialization.msgpack_restore(path.read_bytes())
            for (*modules, leaf), value in flax.traverse_util.flatten_dict(tree).items():
                name = ".".join((*modules, _LEAVES.get(leaf, leaf)))
                self._tensors[name] = np.asarray(value).T if leaf == "kernel" else np.asarray(value)
        except Exception as error:  # damaged files raise nearly anything
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{path}: not a whole file of Flax parameters ({reason}); fetch it again") from None
        self.shapes = {name: tensor.shape for name, tensor in self._tensors.items()}

    def read(self, name: str) -> np.ndarray:
        """Returns a tensor, perhaps a view."""
        return self._tensors[name]
