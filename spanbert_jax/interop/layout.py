"""Where Hugging Face's tensors lie in our parameters.

Names and layouts are those of BertModel under the prefix "bert.", with its heads; the boundary head has the reference's
names. A decoder has the same ones, whatever its kind. Kernels are transposed, since PyTorch's linear layers hold
[out, in]; layers are stacked on a leading axis; rows that pad our vocabulary have no counterpart.
"""
from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from spanbert_jax.model import Decoder, EncoderModel

EMBEDDING = "bert.embeddings.word_embeddings.weight"
_LAYER = "bert.encoder.layer.{}."
_MODULES = {
    "encoder/embeddings/token": "bert.embeddings.word_embeddings",
    "encoder/embeddings/position": "bert.embeddings.position_embeddings",
    "encoder/embeddings/token_type": "bert.embeddings.token_type_embeddings",
    "encoder/embeddings/norm": "bert.embeddings.LayerNorm",
    "encoder/layers/attention/query": _LAYER + "attention.self.query",
    "encoder/layers/attention/key": _LAYER + "attention.self.key",
    "encoder/layers/attention/value": _LAYER + "attention.self.value",
    "encoder/layers/attention/output": _LAYER + "attention.output.dense",
    "encoder/layers/attention_norm": _LAYER + "attention.output.LayerNorm",
    "encoder/layers/feed_forward_in": _LAYER + "intermediate.dense",
    "encoder/layers/feed_forward_out": _LAYER + "output.dense",
    "encoder/layers/feed_forward_norm": _LAYER + "output.LayerNorm",
    "encoder/layers/memory_attention/query": _LAYER + "crossattention.self.query",
    "encoder/layers/memory_attention/key": _LAYER + "crossattention.self.key",
    "encoder/layers/memory_attention/value": _LAYER + "crossattention.self.value",
    "encoder/layers/memory_attention/output": _LAYER + "crossattention.output.dense",
    "encoder/layers/memory_attention_norm": _LAYER + "crossattention.output.LayerNorm",
    "encoder/norm": "bert.encoder.LayerNorm",
    "pooler": "bert.pooler.dense",
    "masked_token_head/transform": "cls.predictions.transform.dense",
    "masked_token_head/norm": "cls.predictions.transform.LayerNorm",
    "masked_token_head/output": "cls.predictions",
    "boundary_head/place": "cls.pair_target_predictions.position_embeddings",
    "boundary_head/first": "cls.pair_target_predictions.mlp_layer_norm.linear1",
    "boundary_head/first_norm": "cls.pair_target_predictions.mlp_layer_norm.layer_norm1",
    "boundary_head/second": "cls.pair_target_predictions.mlp_layer_norm.linear2",
    "boundary_head/second_norm": "cls.pair_target_predictions.mlp_layer_norm.layer_norm2",
    "boundary_head/output": "cls.pair_target_predictions",
    "next_sentence_head": "cls.seq_relationship",
    "question_answering_head": "qa_outputs",
    "classification_head": "classifier",
}
_LEAVES = {"kernel": "weight", "embedding": "weight", "scale": "weight", "bias": "bias"}


def is_known(name: str) -> bool:
    """Whether there is a place for a tensor of that name in some network here."""
    module, _, leaf = re.sub(r"^bert\.encoder\.layer\.\d+\.", _LAYER, name).rpartition(".")
    return module in _MODULES.values() and leaf in _LEAVES.values()


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One of our parameters.

    Attributes:
      path: its keys in the tree.
      shape: ours.
      names: of its tensors; one a layer if it is stacked.
      stacked: whether its leading axis counts layers.
      rows: of its vocabulary, without padding; None where it has no vocabulary axis.
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
        """The part of the network that it belongs to and that may be missing as a whole."""
        return "memory_attention" if "memory_attention" in "/".join(self.path) else self.path[0]

    @property
    def tensor_shape(self) -> tuple[int, ...]:
        """The shape of each of its tensors."""
        shape = self.shape[1:] if self.stacked else self.shape
        if self.rows is not None:
            shape = (self.rows, *shape[1:])
        return shape[::-1] if self.kind == "kernel" else shape

    def place(self, index: int, array: np.ndarray) -> np.ndarray:
        """The part of `array`, which has our shape, for tensor number `index`, turned as that tensor is."""
        part = array[index] if self.stacked else array[:self.rows]
        return part.T if self.kind == "kernel" else part


@functools.cache
def leaves(model: EncoderModel | Decoder) -> tuple[Leaf, ...]:
    """The parameters of a network, in a fixed order."""
    shapes = nn.unbox(jax.eval_shape(lambda: model.init(jax.random.key(0), **model.smallest_inputs)["params"]))
    return tuple(leaf_of(tuple(key.key for key in path), leaf.shape, model.config.vocab_size)
                 for path, leaf in jax.tree_util.tree_leaves_with_path(shapes))


def leaf_of(path: tuple[str, ...], shape: tuple[int, ...], vocab_size: int) -> Leaf:
    """The parameter at a path; KeyError where there is none. `vocab_size` is V without padding."""
    stacked, module = "layers" in path[:2], "/".join(path[:-1])
    module = _MODULES[module if module in _MODULES else f"encoder/{module}"]  # a decoder's own, as an encoder's
    name = f"{module}.{_LEAVES[path[-1]]}"
    names = tuple(name.format(layer) for layer in range(shape[0])) if stacked else (name,)
    vocabulary = path[-3:-1] == ("embeddings", "token") or path[1:] == ("output", "bias")
    return Leaf(path, shape, names, stacked, vocab_size if vocabulary else None)


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
    """The tensors of a network's parameters, each contiguous, by name. One parameter at a time leaves the device."""
    for leaf in leaves(model):
        value = params
        for key in leaf.path:
            value = value[key]
        array = np.asarray(nn.unbox(value), np.float32)
        if array.shape != leaf.shape:
            raise ValueError(f"parameter {'/'.join(leaf.path)} is {array.shape}, and the network's is {leaf.shape}")
        for index, name in enumerate(leaf.names):
            yield name, np.ascontiguousarray(leaf.place(index, array))
