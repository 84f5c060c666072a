"""GPT-2's names of the tensors that a decoder has, and its config.json.

Its kernels are stored [in, out]; queries, keys and values are one tensor, keys and values of the encoder another.
"""
from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from spanbert_jax.common.errors import UserError
from spanbert_jax.interop.configuration import check_required, check_value
from spanbert_jax.interop.layout import EMBEDDING
from spanbert_jax.interop.naming import Stored
from spanbert_jax.model import DecoderConfig

_LAYER = "bert.encoder.layer.{}."
# GPT-2's module -> the modules of `layout` that are in it, one after the other.
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
_TIE = ("lm_head.weight", "cls.predictions.decoder.weight")
# Ours -> GPT-2's.
_FIELDS = {
    "vocab_size": "vocab_size", "num_layers": "n_layer", "width": "n_embd", "num_heads": "n_head",
    "feed_forward": "n_inner", "max_positions": "n_positions", "dropout": "resid_pdrop",
    "attention_dropout": "attn_pdrop", "layer_norm_epsilon": "layer_norm_epsilon",
    "initializer_range": "initializer_range",
}
_DEFAULTS = {"resid_pdrop": 0.1, "attn_pdrop": 0.1, "layer_norm_epsilon": 1e-5, "initializer_range": 0.02}
# What must be so, where it is said at all.
_REQUIRED = {"model_type": "gpt2", "activation_function": "gelu_new", "scale_attn_weights": True,
             "scale_attn_by_inverse_layer_idx": False, "reorder_and_upcast_attn": False}


def rename(path: pathlib.Path, stored: Sequence[Stored]) -> dict[str, Stored]:
    """Names of `layout`, and the tensors that are stored for them; a `rename` of `naming.NamedTensors`."""
    root = next((tensor.name.removesuffix("wte.weight") for tensor in stored if tensor.name.endswith("wte.weight")),
                None)
    if root is None:
        raise UserError(f"{path}: not the weights of a GPT-2: no wte.weight among its {len(stored)} tensors; give a "
                        "GPT-2, or set config.task.decoder to encoder, shared or random")
    outer, entries = root.removesuffix("transformer."), {}
    for tensor in stored:
        name = tensor.name.removeprefix(root)
        if _BUFFERS.fullmatch(name):
            continue
        if tensor.name == f"{outer}{_TIE[0]}":
            entries[_TIE[1]] = tensor
            continue
        module, _, leaf = name.rpartition(".")
        layer = re.match(r"h\.(\d+)\.", module)
        parts = _MODULES.get(re.sub(r"^h\.\d+\.", "h.{}.", module), (tensor.name.rpartition(".")[0],))
        turned = module.rpartition(".")[2] in _KERNELS and leaf == "weight"
        for index, part in enumerate(parts):
            which = (index, len(parts)) if len(parts) > 1 else None
            name = f"{part.format(layer[1]) if layer else part}.{leaf}"
            entries[name] = dataclasses.replace(tensor, part=which, turned=turned)
    return entries


def tensors(named: Iterable[tuple[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Tensors under the names of `layout`, as GPT-2 names and holds them, without a prefix."""
    ours = dict(named)
    layers = {match[1] for name in ours if (match := re.match(r"bert\.encoder\.layer\.(\d+)\.", name))}
    found = {}
    for theirs, parts in _MODULES.items():
        for layer in sorted(layers, key=int) if "{}" in theirs else ("",):
            for leaf in ("weight", "bias"):
                values = [ours.get(f"{part.format(layer)}.{leaf}") for part in parts]
                if values[0] is not None:
                    value = np.concatenate(values)
                    turned = theirs.rpartition(".")[2] in _KERNELS and leaf == "weight"
                    found[f"{theirs.format(layer)}.{leaf}"] = np.ascontiguousarray(value.T if turned else value)
    return found


def decoder_config(shapes: Mapping[str, tuple[int, ...]], values: Mapping[str, Any], file: pathlib.Path,
                   dtype: str) -> DecoderConfig:
    """The decoder that tensors of these shapes, under the names of `layout`, and a config.json are of.

    Raises:
      UserError: when they contradict each other, or it is of another architecture.
    """
    check_required(values, file, _REQUIRED, "as in GPT-2")
    layers = {match[1] for name in shapes if (match := re.match(r"bert\.encoder\.layer\.(\d+)\.", name))}
    positions, inner = "bert.embeddings.position_embeddings.weight", f"{_LAYER.format(0)}intermediate.dense.weight"
    for name, theirs in ((positions, "wpe.weight"), (inner, "h.0.mlp.c_fc.weight")):
        if name not in shapes:
            raise UserError(f"{file.parent}: {theirs} is missing; the file is not whole, or not of a GPT-2")
    found = {"n_layer": len(layers), "n_inner": shapes[inner][0], "n_positions": shapes[positions][0]}
    found["vocab_size"], found["n_embd"] = shapes[EMBEDDING]
    stated = {**found, **_DEFAULTS, **{name: value for name, value in values.items() if value is not None}}
    for name in _FIELDS.values():
        check_value(file, name, stated.get(name))
        if found.get(name, stated[name]) != stated[name]:
            raise UserError(f"{file}: {name} is {stated[name]}, but the tensors have {found[name]}")
    if found["n_embd"] % stated["n_head"]:
        raise UserError(f"{file}: n_head is {stated['n_head']}, and has to divide n_embd={found['n_embd']}")
    return DecoderConfig(**{ours: stated[theirs] for ours, theirs in _FIELDS.items()}, token_types=0, kind="gpt2",
                         dtype=dtype, boundary_head=False)


def to_values(config: DecoderConfig) -> dict[str, Any]:
    """A decoder as a config.json of transformers."""
    values = {"architectures": ["GPT2LMHeadModel"], **_REQUIRED, "is_decoder": True, "add_cross_attention": True}
    return values | {theirs: getattr(config, ours) for ours, theirs in _FIELDS.items()} | {
        "embd_pdrop": config.dropout, "tie_word_embeddings": True}
