"""ModernBERT in Hugging Face's formats: names as in ModernBertModel under the prefix "model.", with its heads.

The configs of transformers 4 and 5 differ: 4 has `global_attn_every_n_layers` and two bases of rotary positions, 5 has
`layer_types` and `rope_parameters`. Both are read, and both are written.
"""
import dataclasses
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.json_files import shown
from spanbert_jax.interop.architectures import Conversion, StoredParts
from spanbert_jax.interop.architectures.bert import BOUNDARY_MODULES, boundary_heads
from spanbert_jax.interop.configuration import check_value, stored_labels, stored_problem_type
from spanbert_jax.interop.naming import NamedTensors, Stored, TensorNames
from spanbert_jax.model import EncoderOnly, Head, PretrainingHeads, make_head
from spanbert_jax.model.architectures.modernbert import ModernBertConfig

_LAYER = "model.layers.{}."
_MODULES = {
    "encoder/embeddings/token": "model.embeddings.tok_embeddings",
    "encoder/embeddings/norm": "model.embeddings.norm",
    "encoder/layers/attention_norm": _LAYER + "attn_norm",
    "encoder/layers/attention/query": _LAYER + "attn.query",
    "encoder/layers/attention/key": _LAYER + "attn.key",
    "encoder/layers/attention/value": _LAYER + "attn.value",
    "encoder/layers/attention/output": _LAYER + "attn.Wo",
    "encoder/layers/feed_forward_norm": _LAYER + "mlp_norm",
    "encoder/layers/feed_forward_in": _LAYER + "mlp.input",
    "encoder/layers/feed_forward_gate": _LAYER + "mlp.gate",
    "encoder/layers/feed_forward_out": _LAYER + "mlp.Wo",
    "encoder/norm": "model.final_norm",
    # A model has one of these three, so a head that is trained further begins from that of pretraining.
    "masked_token_head/transform": "head.dense", "masked_token_head/norm": "head.norm",
    "prediction_head/transform": "head.dense", "prediction_head/norm": "head.norm",
    "pooler/transform": "head.dense", "pooler/norm": "head.norm",
    "masked_token_head/output": "decoder",
    "next_sentence_head": "cls.seq_relationship",
    "question_answering_head": "classifier",
    "classification_head": "classifier",
    **BOUNDARY_MODULES}
_TIES = ("decoder.weight", "cls.pair_target_predictions.decoder.weight")
# Files have no norm before the attention of the first layer; ours has no effect.
_FIRST_NORM = ("model.layers.0.attn_norm.weight", "model.layers.0.attn_norm.bias")
NAMES = TensorNames(_MODULES, prefix="model.", ties=_TIES, optional=_FIRST_NORM,
                    twins={"model.embeddings.tok_embeddings.weight": _TIES[0]})
# Tensors of files that hold several of ours, on the axis of outputs.
_FUSED = {"attn.Wqkv": ("attn.query", "attn.key", "attn.value"), "mlp.Wi": ("mlp.input", "mlp.gate")}

# Fields of our config -> fields of config.json.
_FIELDS = {
    "vocab_size": "vocab_size", "num_layers": "num_hidden_layers", "width": "hidden_size",
    "num_heads": "num_attention_heads", "feed_forward": "intermediate_size",
    "max_positions": "max_position_embeddings", "dropout": "embedding_dropout",
    "attention_dropout": "attention_dropout", "feed_forward_dropout": "mlp_dropout",
    "classifier_dropout": "classifier_dropout", "layer_norm_epsilon": "norm_eps",
    "initializer_range": "initializer_range", "initializer_cutoff": "initializer_cutoff_factor",
    "window": "local_attention", "pooling": "classifier_pooling", "norm_bias": "norm_bias",
    "attention_bias": "attention_bias", "feed_forward_bias": "mlp_bias", "head_bias": "classifier_bias"}
_REQUIRED = {"model_type": "modernbert", "hidden_activation": "gelu", "classifier_activation": "gelu"}
_GLOBAL, _LOCAL = "full_attention", "sliding_attention"
_BASES = {"global_rotary_base": ("global_rope_theta", _GLOBAL), "local_rotary_base": ("local_rope_theta", _LOCAL)}
_CLASSES = {
    None: "ModernBertModel", "masked_lm": "ModernBertForMaskedLM",
    "question_answering": "ModernBertForQuestionAnswering",
    "sequence_classification": "ModernBertForSequenceClassification",
    "token_classification": "ModernBertForTokenClassification"}


def read(tensors: NamedTensors, values: Mapping[str, Any], file: pathlib.Path | None) -> StoredParts:
    """Returns config and heads of stored tensors. Raises UserError if config and tensors contradict each other."""
    if file is None:
        raise UserError(f"{tensors.path}: the weights of a ModernBERT need their config.json beside them")
    pretraining = boundary_heads(tensors, NAMES)
    return StoredParts(read_config(tensors, values, file), _head(tensors, values, pretraining, file), False,
                       pretraining)


def read_config(tensors: NamedTensors, values: Mapping[str, Any], file: pathlib.Path) -> ModernBertConfig:
    """Returns the config of stored tensors; see `read`."""
    fields: dict[str, Any] = {}
    for ours, theirs in _FIELDS.items():
        if values.get(theirs) is not None:
            check_value(file, theirs, fields.setdefault(ours, values[theirs]))
    fields |= _rotary_bases(values, file)
    rows, width = tensors.matrix(NAMES.embedding)
    found = {"width": width, "num_layers": tensors.count_layers(r"model\.layers\.(\d+)\."), "vocab_size": rows}
    if (inner := NAMES.tensor("encoder/layers/feed_forward_in", "kernel").format(0)) in tensors.shapes:
        found["feed_forward"] = tensors.matrix(inner)[0]
    defaults = {field.name: field.default for field in dataclasses.fields(ModernBertConfig)}
    for name, value in found.items():
        stated = fields.get(name, value if name == "vocab_size" else defaults[name])
        # The embedding is sometimes padded beyond the vocabulary that the config states.
        if stated != value and not (name == "vocab_size" and stated < value):
            raise UserError(f"{file}: {_FIELDS[name]} is {stated}, but the tensors of {tensors.path} have {value}")
        fields[name] = stated
    config = ModernBertConfig(**fields, global_every=_global_every(values, file, fields["num_layers"]))
    if config.width % (2 * config.num_heads):
        raise UserError(f"{file}: num_attention_heads is {config.num_heads}; hidden_size={config.width} has to be an "
                        "even multiple of it, since rotary positions rotate pairs")
    return config


def _rotary_bases(values: Mapping[str, Any], file: pathlib.Path) -> dict[str, float]:
    """The bases of rotary positions that config.json states. Raises UserError if they are not of kinds of layers.

    Also if they are scaled.
    """
    _unscaled(values.get("rope_scaling"), "rope_scaling", file)
    parameters = _unscaled(values.get("rope_parameters"), "rope_parameters", file)
    if "rope_theta" in parameters:
        raise UserError(f"{file}: rope_parameters is {shown(parameters)}; it has to name {_GLOBAL} and {_LOCAL}, each "
                        "with its own rope_theta")
    bases: dict[str, float] = {}
    for ours, (old, kind) in _BASES.items():
        rotary = _unscaled(parameters.get(kind), f"rope_parameters.{kind}", file)
        # A local base of null is that of global layers.
        base = rotary.get("rope_theta", values.get(old, bases.get("global_rotary_base") if old in values else None))
        if base is not None:
            check_value(file, old, base)
            bases[ours] = float(base)
    return bases


def _unscaled(stated: Any, field: str, file: pathlib.Path) -> Mapping[str, Any]:
    """Returns parameters of rotary positions, {} for null. Raises UserError if they are not of the default type."""
    parameters = {} if stated is None else stated
    # "type" is the older name.
    if not (isinstance(parameters, dict)
            and parameters.get("rope_type", parameters.get("type", "default")) == "default"):
        raise UserError(f"{file}: {field} is {shown(stated)}; only rotary positions of the rope_type 'default', which "
                        "are not scaled, can be read")
    return parameters


def _global_every(values: Mapping[str, Any], file: pathlib.Path, layers: int) -> int:
    """The distance of global layers."""
    kinds = values.get("layer_types")
    if kinds is None:
        check_value(file, "global_attn_every_n_layers", every := values.get("global_attn_every_n_layers", 3))
        return every
    every = layers
    if isinstance(kinds, list):
        every = next((layer for layer, kind in enumerate(kinds) if layer and kind == _GLOBAL), layers)
    if kinds != layer_types(layers, every):
        raise UserError(f"{file}: layer_types is {shown(kinds)}; only a global layer ({_GLOBAL}) first, "
                        f"and then at equal distances, can be read, and {_LOCAL} between, for each of {layers} layers")
    return every


def layer_types(layers: int, every: int) -> list[str]:
    """The kinds of layers, as transformers 5 names them."""
    return [_LOCAL if layer % every else _GLOBAL for layer in range(layers)]


def _head(tensors: NamedTensors, values: Mapping[str, Any], pretraining: PretrainingHeads, file: pathlib.Path) -> Head:
    if "classifier.weight" not in tensors.shapes:
        if "head.dense.weight" not in tensors.shapes:
            return EncoderOnly()
        return pretraining if pretraining.boundary else make_head("masked_lm")
    heads = {name: head for head, name in _CLASSES.items()}
    stated = (values.get("architectures") or [_CLASSES["sequence_classification"]])[0]
    if heads.get(stated) == "question_answering":
        return make_head("question_answering")
    labels = stored_labels(tensors.matrix("classifier.weight")[0], values, file, f"classifier.weight of {tensors.path}")
    return make_head(heads.get(stated), labels, stored_problem_type(values, file))


def to_values(config: ModernBertConfig) -> dict[str, Any]:
    """Returns the fields of a config.json, for transformers 4 and 5."""
    bases = {ours: getattr(config, ours) for ours in _BASES}
    return {**_REQUIRED, **{theirs: getattr(config, ours) for ours, theirs in _FIELDS.items()}, "decoder_bias": True,
            "pad_token_id": 0,
            "global_attn_every_n_layers": config.global_every,
            "layer_types": layer_types(config.num_layers, config.global_every),
            **{old: bases[ours] for ours, (old, _) in _BASES.items()},
            "rope_parameters": {kind: {"rope_type": "default", "rope_theta": bases[ours]}
                                for ours, (_, kind) in _BASES.items()}}


def rename(path: pathlib.Path, stored: Sequence[Stored]) -> dict[str, Stored]:
    """Returns stored tensors by `NAMES`; others keep theirs. Raises UserError for other models and duplicate names."""
    inner = NAMES.embedding.removeprefix(NAMES.prefix)
    roots = sorted(tensor.name.removesuffix(inner) for tensor in stored if tensor.name.endswith(inner))
    if len(roots) != 1:
        raise UserError(f"{path}: not the weights of one ModernBERT: {len(roots)} tensors are named {inner}, among "
                        f"{len(stored)} tensors")
    outer = roots[0].removesuffix(NAMES.prefix)
    body = ("embeddings.", "layers.", "final_norm.")
    entries: dict[str, Stored] = {}
    for tensor in stored:
        name = tensor.name.removeprefix(roots[0])
        name = NAMES.prefix + name if name.startswith(body) else tensor.name.removeprefix(outer)
        module, _, leaf = name.rpartition(".")
        fused = next((fused for fused in _FUSED if module.endswith(f".{fused}")), "")
        parts = _FUSED[fused] if fused else ("",)
        for index, part in enumerate(parts):
            ours = f"{module.removesuffix(fused)}{part}.{leaf}" if fused else name
            if ours in entries:
                raise UserError(f"{entries[ours]} and {tensor} are the same tensor of the model; remove one of them")
            entries[ours] = dataclasses.replace(tensor, part=(index, len(parts))) if fused else tensor
    return entries


def export(named: Iterable[tuple[str, np.ndarray]]) -> Iterator[tuple[str, np.ndarray]]:
    """Tensors by `NAMES` as transformers names and stores them."""
    ours = {name: value for name, value in named if name not in _FIRST_NORM}
    for theirs, parts in _FUSED.items():
        for name in [name for name in ours if name.rpartition(".")[0].endswith(f".{parts[0]}")]:
            names = [name.replace(parts[0], part) for part in parts]
            yield name.replace(parts[0], theirs), np.concatenate([ours.pop(part) for part in names])
    yield from ours.items()


MODERNBERT = Conversion(NAMES, _REQUIRED, {}, "ModernBERT with GELU", rename, read, to_values, _CLASSES, export)
