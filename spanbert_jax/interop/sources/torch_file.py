"""The tensors of a PyTorch weight file: pytorch_model.bin, model.pt, checkpoint_best.pt."""
import contextlib
import errno
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from spanbert_jax.common.errors import UserError
from spanbert_jax.interop.sources import torch_pickle
from spanbert_jax.interop.sources.tensors import check_shapes
from spanbert_jax.interop.sources.torch_pickle import StoredTensor, Unreadable

_HOLDERS = ("model", "state_dict", "model_state_dict")


class TorchFile:
    """The tensors of a file, at its top or under one of "model", "state_dict" and "model_state_dict".

    They are read without PyTorch, by `torch_pickle`, which runs no code from the file. Other objects in the file are
    ignored. Implements the protocol `Tensors`.
    """

    def __init__(self, path: str | pathlib.Path) -> None:
        """Finds the tensors. Raises UserError if the file is damaged, could run code, or holds no tensors."""
        self.path = pathlib.Path(path)
        with _explained(self.path):
            tree, storages = torch_pickle.load(self.path)
            tensors = _named(tree)
            if not tensors:
                raise Unreadable(f"it holds no named tensors, neither at its top nor under {', '.join(_HOLDERS)}; "
                                 "give one that torch.save(model.state_dict(), ...) wrote")
            self._places = {name: torch_pickle.locate(name, tensor, storages) for name, tensor in tensors.items()}
        self.shapes = {name: place.shape for name, place in self._places.items()}
        check_shapes(self.path, self.shapes, self.path.stat().st_size)

    def read(self, name: str) -> np.ndarray:
        """Returns a tensor, perhaps a view, in the dtype that it is stored in. Raises UserError if it is unreadable."""
        with _explained(self.path, name):
            return torch_pickle.read(self.path, self._places[name])


def _named(tree: Any) -> dict[str, StoredTensor]:
    """Returns the tensors under the first holder that has some, else at the top."""
    holders = [tree[name] for name in _HOLDERS if name in tree] if isinstance(tree, dict) else []
    for holder in (holder for holder in (*holders, tree) if isinstance(holder, dict)):
        named = {name: value for name, value in holder.items()
                 if isinstance(name, str) and isinstance(value, StoredTensor)}
        if named:
            return named
    return {}


@contextlib.contextmanager
def _explained(path: pathlib.Path, tensor: str | None = None) -> Iterator[None]:
    """Turns any exception into a UserError that names the file, and the tensor if there is one."""
    about = f"{path}: " if tensor is None else f"{path}: tensor {tensor!r}: "
    try:
        yield
    except Exception as error:  # damaged pickles and zips raise nearly anything
        raise UserError(f"{about}{_reason(error)}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, Unreadable):
        return str(error)
    if isinstance(error, OSError) and error.errno != errno.EINVAL:  # that one is of seeking to a damaged offset
        return f"it cannot be read: {error.strerror}; fix the path or the disk"
    return torch_pickle.NOT_TORCH
