"""Where stored tensors lie in our parameters.

Names and layouts are those of `architectures`; the boundary head has the reference's names. Kernels are transposed,
since PyTorch's linear layers hold [out, in]; layers are stacked on a leading axis; rows that pad our vocabulary have no
counterpart.
"""
from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from spanbert_jax.interop.architectures import TensorNames, conversion_of
from spanbert_jax.model import Decoder, EncoderModel


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One of our parameters.

    Attributes:
      path: its keys in the tree.
      shape: of the parameter.
      names: of its tensors; one for each layer if it is stacked.
      stacked: whether its leading axis counts layers.
      rows: rows of its vocabulary without padding; None if it has no vocabulary axis.
    """
    path: tuple[str, ...]
    shape: tuple[int, ...]
    names: tuple[str, ...]
    stacked: bool
    rows: int | None

    @property
    def kind(self) -> str:
        """"kernel", "embedding", "scale" or "bias"."""
        return self.path[-1]

    @property
    def module(self) -> str:
        """The part of the model that it belongs to and that may be missing as a whole."""
        return "memory_attention" if "memory_attention" in "/".join(self.path) else self.path[0]

    @property
    def is_in_body(self) -> bool:
        """Whether it belongs to embeddings or layers, not to a head."""
        return self.path[0] in ("encoder", "embeddings", "layers", "norm")

    @property
    def is_of_norm(self) -> bool:
        """Whether it belongs to a layer norm."""
        return self.path[-2].endswith("norm")

    @property
    def tensor_shape(self) -> tuple[int, ...]:
        """The shape of each of its tensors."""
        shape = self.shape[1:] if self.stacked else self.shape
        if self.rows is not None:
            shape = (self.rows, *shape[1:])
        return shape[::-1] if self.kind == "kernel" else shape

    def slot(self, index: int, array: np.ndarray) -> np.ndarray:
        """A view of the part of `array`, a parameter, that holds tensor number `index`, in the tensor's layout."""
        part = array[index] if self.stacked else array[:self.rows]
        return part.T if self.kind == "kernel" else part


@functools.cache
def leaves(model: EncoderModel | Decoder) -> tuple[Leaf, ...]:
    """The parameters of a model, in a fixed order."""
    shapes = nn.unbox(jax.eval_shape(lambda: model.init(jax.random.key(0), **model.dummy_inputs)["params"]))
    names = conversion_of(model.config).names
    return tuple(leaf_of(tuple(key.key for key in path), leaf.shape, model.config.vocab_size, names)
                 for path, leaf in jax.tree_util.tree_leaves_with_path(shapes))


def leaf_of(path: tuple[str, ...], shape: tuple[int, ...], vocab_size: int, names: TensorNames) -> Leaf:
    """The parameter at a path.

    Args:
      path: its keys in the tree.
      shape: of the parameter.
      vocab_size: V without padding.
      names: of the architecture's tensors.

    Raises:
      KeyError: no model of the architecture has it.
    """
    stacked, module = "layers" in path[:2], "/".join(path[:-1])
    # A decoder's modules have the names of an encoder's.
    name = names.tensor(module if module in names.modules else f"encoder/{module}", path[-1])
    layers = tuple(name.format(layer) for layer in range(shape[0])) if stacked else (name,)
    vocabulary = path[-3:-1] == ("embeddings", "token") or path[1:] == ("output", "bias")
    return Leaf(path, shape, layers, stacked, vocab_size if vocabulary else None)


def build(model: EncoderModel | Decoder, make: Callable[[Leaf], Any]) -> dict[str, Any]:
    """A tree of parameters, each made from its `Leaf`."""
    tree: dict[str, Any] = {}
    for leaf in leaves(model):
        node = tree
        for key in leaf.path[:-1]:
            node = node.setdefault(key, {})
        node[leaf.path[-1]] = make(leaf)
    return tree


def tensors(model: EncoderModel | Decoder, params: Any) -> Iterator[tuple[str, np.ndarray]]:
    """The tensors of a model's parameters, each contiguous, by name. One parameter at a time leaves the device."""
    for leaf in leaves(model):
        value = params
        for key in leaf.path:
            value = value[key]
        array = np.asarray(nn.unbox(value), np.float32)
        if array.shape != leaf.shape:
            raise ValueError(f"parameter {'/'.join(leaf.path)} is {array.shape}, and the model's is {leaf.shape}")
        for index, name in enumerate(leaf.names):
            yield name, np.ascontiguousarray(leaf.slot(index, array))
