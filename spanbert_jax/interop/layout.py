"""The place of each stored tensor in our parameters, by the names of `architectures`.

Kernels are transposed, because PyTorch's linear layers hold [out, in]; layers are stacked on a leading axis; rows that
pad our vocabulary have no stored tensor.
"""
import dataclasses
import functools
import operator
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from spanbert_jax.common.errors import UserError
from spanbert_jax.interop.architectures import conversion_of
from spanbert_jax.interop.naming import TensorNames
from spanbert_jax.model import Decoder, EncoderModel


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One of our parameters."""
    path: tuple[str, ...]  # its keys in the tree
    shape: tuple[int, ...]
    names: tuple[str, ...]  # names of its tensors; one for each layer if it is stacked
    stacked: bool  # whether its leading axis counts layers
    rows: int | None  # rows of its vocabulary without padding; None if it has no vocabulary axis

    @property
    def kind(self) -> str:
        """"kernel", "embedding", "scale" or "bias"."""
        return self.path[-1]

    @property
    def module(self) -> str:
        """The part of the model that it belongs to and that may be missing as a whole."""
        return "memory_attention" if "memory_attention" in "/".join(self.path) else self.path[0]

    @property
    def tensor_shape(self) -> tuple[int, ...]:
        """The shape of each of its tensors."""
        shape = self.shape[1:] if self.stacked else self.shape
        shape = shape if self.rows is None else (self.rows, *shape[1:])
        return shape[::-1] if self.kind == "kernel" else shape

    def slot(self, index: int, array: np.ndarray) -> np.ndarray:
        """A view of the part of `array`, a parameter, that holds tensor number `index`, in the tensor's layout."""
        part = array[index] if self.stacked else array[:self.rows]
        return part.T if self.kind == "kernel" else part


@functools.cache
def leaves(model: EncoderModel | Decoder) -> tuple[Leaf, ...]:
    """Returns the parameters of a model, in a fixed order."""
    shapes = nn.unbox(jax.eval_shape(lambda: model.init(jax.random.key(0), **model.dummy_inputs)["params"]))
    names = conversion_of(model.config).names
    return tuple(leaf_of(tuple(key.key for key in path), leaf.shape, model.config.vocab_size, names)
                 for path, leaf in jax.tree_util.tree_leaves_with_path(shapes))


def leaf_of(path: tuple[str, ...], shape: tuple[int, ...], vocab_size: int, names: TensorNames) -> Leaf:
    """Returns the parameter with the keys `path`. Raises KeyError if no model of the architecture has it.

    `vocab_size` is V without padding, and `names` are those of the architecture.
    """
    stacked, module = "layers" in path[:2], "/".join(path[:-1])
    # A decoder's modules have the names of an encoder's.
    name = names.tensor(module if module in names.modules else f"encoder/{module}", path[-1])
    layers = tuple(name.format(layer) for layer in range(shape[0])) if stacked else (name,)
    vocabulary = path[-3:-1] == ("embeddings", "token") or path[1:] == ("output", "bias")
    return Leaf(path, shape, layers, stacked, vocab_size if vocabulary else None)


def build(model: EncoderModel | Decoder, make: Callable[[Leaf], Any]) -> dict[str, Any]:
    """Returns a tree of parameters, each made from its `Leaf`."""
    tree: dict[str, Any] = {}
    for leaf in leaves(model):
        node = tree
        for key in leaf.path[:-1]:
            node = node.setdefault(key, {})
        node[leaf.path[-1]] = make(leaf)
    return tree


def tensors(model: EncoderModel | Decoder, params: Any) -> Iterator[tuple[str, np.ndarray]]:
    """The tensors of a model's parameters, each contiguous, by name. One parameter at a time leaves the device.

    Raises UserError if a parameter is missing, or has another shape.
    """
    for leaf in leaves(model):
        path = "/".join(leaf.path)
        try:
            array = np.asarray(nn.unbox(functools.reduce(operator.getitem, leaf.path, params)), np.float32)
        except (KeyError, TypeError, ValueError):
            raise UserError(f"params: no array {path} in them; give all parameters of the model, as from_pretrained "
                            "returns them") from None
        if array.shape != leaf.shape:
            raise UserError(f"params: {path} has the shape {array.shape}, and the model's has {leaf.shape}")
        for index, name in enumerate(leaf.names):
            yield name, np.ascontiguousarray(leaf.slot(index, array))
