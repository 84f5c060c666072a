"""The tensors of a PyTorch weight file: pytorch_model.bin, model.pt, checkpoint_best.pt."""
import argparse
import contextlib
import errno
import functools
import pathlib
import pickle
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from spanbert_jax.common.errors import UserError
from spanbert_jax.interop.sources import torch_pickle
from spanbert_jax.interop.sources.torch_pickle import Unreadable

_HOLDERS = ("model", "state_dict", "model_state_dict")


class TorchFile:
    """The tensors of a file, at its top or under one of "model", "state_dict" and "model_state_dict".

    PyTorch reads it if it is installed, else `torch_pickle`; neither runs code from the file. Other objects in the file
    are ignored. Implements the protocol `Tensors`.
    """

    def __init__(self, path: str | pathlib.Path) -> None:
        """Finds the tensors. Raises UserError if the file is damaged, could run code, or holds no tensors."""
        self.path = pathlib.Path(path)
        with _explained(self.path):
            self._tensors = (_open_with_torch if _has_torch() else _open_without_torch)(self.path)
            if not self._tensors:
                raise Unreadable(f"it holds no named tensors, neither at its top nor under {', '.join(_HOLDERS)}; "
                                 "give one that torch.save(model.state_dict(), ...) wrote")
        self.shapes = {name: tensor.shape for name, tensor in self._tensors.items()}

    def read(self, name: str) -> np.ndarray:
        """Returns a tensor, perhaps a view, in the dtype that it is stored in. Raises UserError if it is unreadable."""
        tensor = self._tensors[name]
        with _explained(self.path, name):
            return tensor.read()


class _Tensor(NamedTuple):
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def _has_torch() -> bool:
    try:
        import torch  # noqa: F401
    except ImportError:
        return False
    return True


def _open_with_torch(path: pathlib.Path) -> dict[str, _Tensor]:
    import torch
    zipped = torch_pickle.is_zip(path)
    if zipped:
        torch_pickle.zip_members(path)  # PyTorch would take compressed bytes for the numbers themselves
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # fairseq keeps its arguments in one
            tree = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        raise Unreadable(torch_pickle.refusal(refused[1]) if refused else torch_pickle.NOT_TORCH) from None
    return {name: _Tensor(tuple(tensor.shape), functools.partial(_to_numpy, tensor))
            for name, tensor in _named(tree, torch.Tensor).items()}


def _to_numpy(tensor: Any) -> np.ndarray:
    import torch
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def _open_without_torch(path: pathlib.Path) -> dict[str, _Tensor]:
    tree, storages = torch_pickle.load(path)
    tensors = _named(tree, torch_pickle.StoredTensor)
    places = {name: torch_pickle.locate(name, tensor, storages) for name, tensor in tensors.items()}
    return {name: _Tensor(place.shape, functools.partial(torch_pickle.read, path, place))
            for name, place in places.items()}


def _named(tree: Any, kind: type) -> dict[str, Any]:
    """Returns the tensors, of the class `kind`, under the first holder that has some, else at the top."""
    holders = [tree[name] for name in _HOLDERS if name in tree] if isinstance(tree, dict) else []
    for holder in (holder for holder in (*holders, tree) if isinstance(holder, dict)):
        named = {name: value for name, value in holder.items() if isinstance(name, str) and isinstance(value, kind)}
        if named:
            return named
    return {}


@contextlib.contextmanager
def _explained(path: pathlib.Path, tensor: str | None = None) -> Iterator[None]:
    """Turns any exception into a UserError that names the file, and the tensor if there is one."""
    about = f"{path}: " if tensor is None else f"{path}: tensor {tensor!r}: "
    try:
        yield
    except Exception as error:  # damaged pickles and zips, and torch.load on them, raise nearly anything
        raise UserError(f"{about}{_reason(error)}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, Unreadable):
        return str(error)
    if isinstance(error, OSError) and error.errno != errno.EINVAL:  # that one is of seeking to a damaged offset
        return f"it cannot be read: {error.strerror}; fix the path or the disk"
    return torch_pickle.NOT_TORCH
