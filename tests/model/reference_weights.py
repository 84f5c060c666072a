"""The reference's tensors by paths of parameters."""
import re

import jax
import numpy as np

_DENSE = {"weight": "kernel", "bias": "bias"}
_NORM = {"gamma": "scale", "beta": "bias"}
# The reference's module -> the path of ours, and how its leaves are renamed.
_MODULES = {
    "bert.embeddings.LayerNorm": ("encoder/embeddings/norm", _NORM),
    "bert.embeddings.word_embeddings": ("encoder/embeddings/token", {"weight": "embedding"}),
    "bert.embeddings.position_embeddings": ("encoder/embeddings/position", {"weight": "embedding"}),
    "bert.embeddings.token_type_embeddings": ("encoder/embeddings/token_type", {"weight": "embedding"}),
    "attention.self.query": ("attention/query", _DENSE),
    "attention.self.key": ("attention/key", _DENSE),
    "attention.self.value": ("attention/value", _DENSE),
    "attention.output.dense": ("attention/output", _DENSE),
    "attention.output.LayerNorm": ("attention_norm", _NORM),
    "intermediate.dense": ("feed_forward_in", _DENSE),
    "output.dense": ("feed_forward_out", _DENSE),
    "output.LayerNorm": ("feed_forward_norm", _NORM),
    "cls.predictions": ("masked_token_head/output", {"bias": "bias"}),
    "cls.predictions.transform.dense": ("masked_token_head/transform", _DENSE),
    "cls.predictions.transform.LayerNorm": ("masked_token_head/norm", _NORM),
    "cls.pair_target_predictions": ("boundary_head/output", {"bias": "bias"}),
    "cls.pair_target_predictions.position_embeddings": ("boundary_head/place", {"weight": "embedding"}),
    "cls.pair_target_predictions.mlp_layer_norm.linear1": ("boundary_head/first", _DENSE),
    "cls.pair_target_predictions.mlp_layer_norm.linear2": ("boundary_head/second", _DENSE),
    "cls.pair_target_predictions.mlp_layer_norm.layer_norm1": ("boundary_head/first_norm", _NORM),
    "cls.pair_target_predictions.mlp_layer_norm.layer_norm2": ("boundary_head/second_norm", _NORM),
}


def locate(name: str) -> tuple[tuple[str, ...], int | None]:
    """The path of ours and, inside the stacked layers, the layer's index."""
    layer = re.match(r"bert\.encoder\.layer\.(\d+)\.(.*)", name)
    module, leaf = (layer[2] if layer else name).rsplit(".", 1)
    path, leaves = _MODULES[module]
    prefix = ("encoder", "layers") if layer else ()
    return (*prefix, *path.split("/"), leaves[leaf]), int(layer[1]) if layer else None


def is_tied(name: str) -> bool:
    """Whether a tensor only repeats the word embeddings."""
    return name.endswith("decoder.weight")


def read(tree: dict, name: str, vocab_size: int) -> np.ndarray:
    """The value in our tree under the reference's name and in its layout, without the padding of the vocabulary."""
    path, layer = locate(name)
    value = tree
    for key in path:
        value = value[key]
    value = np.asarray(value if layer is None else value[layer])
    if path[-1] == "kernel":
        value = value.T
    return value[:vocab_size] if "token" in path or (path[-2] == "output" and layer is None) else value


def load(shapes: dict, weights: dict[str, np.ndarray]) -> dict:
    """Our parameters, of the given shapes, holding the reference's weights; the padding of the vocabulary is noise."""
    noise = np.random.default_rng(0)
    tree = jax.tree.map(lambda leaf: noise.normal(size=leaf.shape).astype(np.float32), shapes)
    for name, value in weights.items():
        if not is_tied(name):
            path, layer = locate(name)
            target = tree
            for key in path[:-1]:
                target = target[key]
            target = target[path[-1]] if layer is None else target[path[-1]][layer]
            value = value.T if path[-1] == "kernel" else value
            target[:value.shape[0]] = value
    return tree
