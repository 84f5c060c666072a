"""GPT-2 decoders in Hugging Face's formats. Their tensors have BERT's names here.

GPT-2 stores kernels [in, out]; queries, keys and values are one tensor, keys and values of the encoder another.
"""
import dataclasses
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.formatting import format_plural
from spanbert_jax.interop.architectures import Conversion, StoredParts
from spanbert_jax.interop.architectures.bert import LAYERS, NAMES
from spanbert_jax.interop.configuration import check_value
from spanbert_jax.interop.naming import NamedTensors, Stored, layer_numbers
from spanbert_jax.model import EncoderOnly, PretrainingHeads
from spanbert_jax.model.architectures.gpt2 import Gpt2Config

_LAYER = "bert.encoder.layer.{}."
# Module of GPT-2 -> the modules of BERT that are in it, in order.
_MODULES = {
    "wte": ("bert.embeddings.word_embeddings",),
    "wpe": ("bert.embeddings.position_embeddings",),
    "ln_f": ("bert.encoder.LayerNorm",),
    "h.{}.attn.c_attn": tuple(f"{_LAYER}attention.self.{part}" for part in ("query", "key", "value")),
    "h.{}.attn.c_proj": (_LAYER + "attention.output.dense",),
    "h.{}.ln_1": (_LAYER + "attention.output.LayerNorm",),
    "h.{}.crossattention.q_attn": (_LAYER + "crossattention.self.query",),
    "h.{}.crossattention.c_attn": tuple(f"{_LAYER}crossattention.self.{part}" for part in ("key", "value")),
    "h.{}.crossattention.c_proj": (_LAYER + "crossattention.output.dense",),
    "h.{}.ln_cross_attn": (_LAYER + "crossattention.output.LayerNorm",),
    "h.{}.mlp.c_fc": (_LAYER + "intermediate.dense",),
    "h.{}.mlp.c_proj": (_LAYER + "output.dense",),
    "h.{}.ln_2": (_LAYER + "output.LayerNorm",),
}
_KERNELS = ("c_attn", "c_proj", "c_fc", "q_attn")
_BUFFERS = re.compile(r"h\.\d+\.(attn|crossattention)\.(bias|masked_bias)")
_TIE = "lm_head.weight"
# Fields of our config -> fields of config.json.
_FIELDS = {"vocab_size": "vocab_size", "num_layers": "n_layer", "width": "n_embd", "num_heads": "n_head",
           "feed_forward": "n_inner", "max_positions": "n_positions", "dropout": "resid_pdrop",
           "attention_dropout": "attn_pdrop", "layer_norm_epsilon": "layer_norm_epsilon",
           "initializer_range": "initializer_range"}
_DEFAULTS = {"resid_pdrop": 0.1, "attn_pdrop": 0.1, "layer_norm_epsilon": 1e-5, "initializer_range": 0.02}
# The only values that can be read, where config.json has the field.
_REQUIRED = {"model_type": "gpt2", "activation_function": "gelu_new", "scale_attn_weights": True,
             "scale_attn_by_inverse_layer_idx": False, "reorder_and_upcast_attn": False}


def rename(path: pathlib.Path, stored: Sequence[Stored]) -> dict[str, Stored]:
    """Returns stored tensors by BERT's names; others keep theirs. Raises UserError if they are not of a GPT-2."""
    roots = [tensor.name.removesuffix("wte.weight") for tensor in stored if tensor.name.endswith("wte.weight")]
    if not roots:
        raise UserError(f"{path}: not the weights of a GPT-2: no wte.weight among its "
                        f"{format_plural(len(stored), 'tensor')}; give a GPT-2, or set "
                        "config.task.decoder to encoder, shared or random")
    root = roots[0]
    outer = root.removesuffix("transformer.")
    entries: dict[str, Stored] = {}
    for tensor in stored:
        name = tensor.name.removeprefix(root)
        if _BUFFERS.fullmatch(name):
            continue
        if tensor.name == f"{outer}{_TIE}":
            entries[NAMES.ties[0]] = tensor
            continue
        module, _, leaf = name.rpartition(".")
        layer = re.match(r"h\.(\d+)\.", module)
        parts = _MODULES.get(re.sub(r"^h\.\d+\.", "h.{}.", module), (tensor.name.rpartition(".")[0],))
        transposed = _is_transposed(module, leaf)
        for index, part in enumerate(parts):
            which = (index, len(parts)) if len(parts) > 1 else None
            name = f"{part.format(layer[1]) if layer else part}.{leaf}"
            entries[name] = dataclasses.replace(tensor, part=which, transposed=transposed)
    return entries


def export(named: Iterable[tuple[str, np.ndarray]]) -> Iterator[tuple[str, np.ndarray]]:
    """Tensors by BERT's names as GPT-2 names and stores them."""
    ours = dict(named)
    for theirs, parts in _MODULES.items():
        for layer in layer_numbers(ours, LAYERS) if "{}" in theirs else ("",):
            for leaf in ("weight", "bias"):
                names = [f"{part.format(layer)}.{leaf}" for part in parts]
                if names[0] in ours:
                    value = np.concatenate([ours[name] for name in names])
                    value = np.ascontiguousarray(value.T if _is_transposed(theirs, leaf) else value)
                    yield f"transformer.{theirs.format(layer)}.{leaf}", value


def _is_transposed(module: str, leaf: str) -> bool:
    return module.rpartition(".")[2] in _KERNELS and leaf == "weight"


def read(tensors: NamedTensors, values: Mapping[str, Any], file: pathlib.Path | None) -> StoredParts:
    """Returns the config of stored tensors. Raises UserError if config and tensors contradict each other."""
    shapes = tensors.shapes
    positions = NAMES.tensor("encoder/embeddings/position", "embedding")
    inner = NAMES.tensor("encoder/layers/feed_forward_in", "kernel").format(0)
    for name, theirs in ((positions, "wpe.weight"), (inner, "h.0.mlp.c_fc.weight")):
        if name not in shapes:
            raise UserError(f"{tensors.path}: {theirs} is missing; the file is incomplete, or not of a GPT-2")
    found = {"n_layer": tensors.count_layers(LAYERS), "n_inner": tensors.matrix(inner)[0],
             "n_positions": tensors.matrix(positions)[0]}
    found["vocab_size"], found["n_embd"] = tensors.matrix(NAMES.embedding)
    stated = {**found, **_DEFAULTS, **{name: value for name, value in values.items() if value is not None}}
    for name in _FIELDS.values():
        check_value(file, name, stated.get(name))
        if found.get(name, stated[name]) != stated[name]:
            raise UserError(f"{file}: {name} is {stated[name]}, but the tensors have {found[name]}")
    if found["n_embd"] % stated["n_head"]:
        raise UserError(f"{file}: n_head is {stated['n_head']}, and has to divide n_embd={found['n_embd']}")
    config = Gpt2Config(**{ours: stated[theirs] for ours, theirs in _FIELDS.items()})
    return StoredParts(config, EncoderOnly(), False, PretrainingHeads(boundary=False))


def to_values(config: Gpt2Config) -> dict[str, Any]:
    """Returns the fields of a config.json."""
    return {**_REQUIRED, **{theirs: getattr(config, ours) for ours, theirs in _FIELDS.items()},
            "embd_pdrop": config.dropout}


GPT2 = Conversion(NAMES, _REQUIRED, {}, "as in GPT-2", rename, read, to_values,
                  {None: "GPT2Model", "decoder": "GPT2LMHeadModel"}, export)
