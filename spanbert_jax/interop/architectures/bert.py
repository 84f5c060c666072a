"""BERT in Hugging Face's formats: names as in BertModel under the prefix "bert.", with its heads.

Files may have other prefixes, the old names of layer norm, or fused projections.
"""
import dataclasses
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.formatting import format_plural
from spanbert_jax.interop.architectures import Conversion, StoredParts
from spanbert_jax.interop.configuration import check_value, stored_labels, stored_problem_type
from spanbert_jax.interop.naming import NamedTensors, Stored, TensorNames
from spanbert_jax.model import BertConfig, EncoderOnly, Head, PretrainingHeads, make_head

_LAYER = "bert.encoder.layer.{}."
LAYERS = r"bert\.encoder\.layer\.(\d+)\."
# The boundary head, of any architecture.
BOUNDARY_MODULES = {
    "boundary_head/place": "cls.pair_target_predictions.position_embeddings",
    "boundary_head/first": "cls.pair_target_predictions.mlp_layer_norm.linear1",
    "boundary_head/first_norm": "cls.pair_target_predictions.mlp_layer_norm.layer_norm1",
    "boundary_head/second": "cls.pair_target_predictions.mlp_layer_norm.linear2",
    "boundary_head/second_norm": "cls.pair_target_predictions.mlp_layer_norm.layer_norm2",
    "boundary_head/output": "cls.pair_target_predictions"}
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
    **BOUNDARY_MODULES,
    "next_sentence_head": "cls.seq_relationship",
    "question_answering_head": "qa_outputs",
    "classification_head": "classifier",
}
_TIES = ("cls.predictions.decoder.weight", "cls.pair_target_predictions.decoder.weight")
NAMES = TensorNames(
    _MODULES, prefix="bert.", ties=_TIES,
    twins={"bert.embeddings.word_embeddings.weight": _TIES[0], "cls.predictions.bias": "cls.predictions.decoder.bias",
           "cls.pair_target_predictions.bias": "cls.pair_target_predictions.decoder.bias"},
    ignored=("bert.embeddings.position_ids", "bert.embeddings.token_type_ids"))

# Fields of our config -> fields of config.json.
_FIELDS = {
    "vocab_size": "vocab_size", "num_layers": "num_hidden_layers", "width": "hidden_size",
    "num_heads": "num_attention_heads", "feed_forward": "intermediate_size",
    "max_positions": "max_position_embeddings", "token_types": "type_vocab_size", "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob", "layer_norm_epsilon": "layer_norm_eps",
    "initializer_range": "initializer_range", "clamp_attention": "clamp_attention"}
# The only values that can be read, where config.json has the field.
_REQUIRED = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
_ENCODER = {"is_decoder": False, "add_cross_attention": False}
_CLASSES = {
    None: "BertModel", "masked_lm": "BertForMaskedLM", "pretraining": "BertForPreTraining",
    "question_answering": "BertForQuestionAnswering", "sequence_classification": "BertForSequenceClassification",
    "token_classification": "BertForTokenClassification", "decoder": "BertLMHeadModel"}
# The width of a head where no config says how many there are, that of every published BERT.
_HEAD_WIDTH = 64

# Other architectures with tensors of the same names.
_RELATIVES = ("roberta", "electra", "deberta", "mpnet", "longformer", "ernie", "layoutlm")
_ROOT = re.compile(r"(.*?)embeddings\.(?:word|position)_embeddings\.weight")
_OLD_LEAVES = {"gamma": "weight", "beta": "bias"}
_FUSED = re.compile(r"(.*\.attention\.self)\.(?:qkv|Wqkv|query_key_value|in_proj)[._](weight|bias)")
_FUSED_PARTS = ("query", "key", "value")


def read(tensors: NamedTensors, values: Mapping[str, Any], file: pathlib.Path | None) -> StoredParts:
    """Returns config and heads of stored tensors. Values that config.json lacks are read from the shapes.

    Raises UserError if config and tensors contradict each other, or neither gives the number of attention heads.
    """
    has = tensors.shapes.__contains__
    pretraining = dataclasses.replace(boundary_heads(tensors, NAMES),
                                      next_sentence=has(NAMES.tensor("next_sentence_head", "kernel")))
    classes = NAMES.tensor("classification_head", "kernel")
    labels: tuple[str, ...] = ()
    if has(classes):
        labels = stored_labels(tensors.matrix(classes)[0], values, file, f"{classes} of {tensors.path}")
    problem_type = stored_problem_type(values, file)
    return StoredParts(read_config(tensors, values, file), _head(tensors, values, pretraining, labels, problem_type),
                       has(NAMES.tensor("pooler", "kernel")), pretraining)


def boundary_heads(tensors: NamedTensors, names: TensorNames) -> PretrainingHeads:
    """Returns pretraining heads with the boundary head that is stored, if there is one."""
    if (place := names.tensor("boundary_head/place", "embedding")) not in tensors.shapes:
        return PretrainingHeads(boundary=False)
    positions, features = tensors.matrix(place)
    return PretrainingHeads(boundary_positions=positions, boundary_features=features)


def read_config(tensors: NamedTensors, values: Mapping[str, Any], file: pathlib.Path | None) -> BertConfig:
    """Returns the config of stored tensors; see `read`."""
    fields = _config_from_shapes(tensors)
    for ours, theirs in _FIELDS.items():
        stated = values.get(theirs)
        if stated is None:
            continue
        check_value(file, theirs, stated)
        # The embedding is sometimes padded beyond the vocabulary that the config states.
        if ours in fields and stated != fields[ours] and not (ours == "vocab_size" and stated < fields[ours]):
            raise UserError(f"{file}: {theirs} is {stated}, but the tensors of {tensors.path} have {fields[ours]}")
        fields[ours] = stated
    if "num_heads" not in fields:
        if fields["width"] % _HEAD_WIDTH:
            raise UserError(f"{tensors.path}: no config.json beside it gives the number of attention heads, and "
                            f"{fields['width']} is not a multiple of {_HEAD_WIDTH}; add one with num_attention_heads")
        fields["num_heads"] = fields["width"] // _HEAD_WIDTH
    if fields["width"] % fields["num_heads"]:
        raise UserError(f"{file}: num_attention_heads is {fields['num_heads']}, which does not divide hidden_size="
                        f"{fields['width']}")
    return BertConfig(**fields)


def _config_from_shapes(tensors: NamedTensors) -> dict[str, Any]:
    fields = {
        "num_layers": tensors.count_layers(LAYERS),
        "feed_forward": tensors.matrix(NAMES.tensor("encoder/layers/feed_forward_in", "kernel").format(0))[0],
        "max_positions": tensors.matrix(NAMES.tensor("encoder/embeddings/position", "embedding"))[0],
        "token_types": tensors.matrix(NAMES.tensor("encoder/embeddings/token_type", "embedding"))[0]}
    fields["vocab_size"], fields["width"] = tensors.matrix(NAMES.embedding)
    return fields


def _head(tensors: NamedTensors, values: Mapping[str, Any], pretraining: PretrainingHeads,
          labels: tuple[str, ...], problem_type: str | None) -> Head:
    def has(module: str) -> bool:
        return NAMES.tensor(module, "kernel") in tensors.shapes

    if has("masked_token_head/transform"):
        return pretraining if pretraining.boundary or pretraining.next_sentence else make_head("masked_lm")
    if has("question_answering_head"):
        return make_head("question_answering")
    if not labels:
        return EncoderOnly(has("pooler"))
    name: str | None = "sequence_classification" if has("pooler") else "token_classification"
    if stated := values.get("architectures"):
        name = {name: head for head, name in _CLASSES.items()}.get(stated[0])  # None for a classifier of another kind
    return make_head(name, labels, problem_type)


def to_values(config: BertConfig) -> dict[str, Any]:
    """Returns the fields of a config.json."""
    return {**_REQUIRED, **_ENCODER, **{theirs: getattr(config, ours) for ours, theirs in _FIELDS.items()},
            "pad_token_id": 0}


def rename(path: pathlib.Path, stored: Sequence[Stored],
           translate: Callable[[str], str] = lambda name: name) -> dict[str, Stored]:
    """Returns stored tensors by `NAMES`; others keep theirs. Raises UserError for other models and duplicate names.

    `translate` gives BERT's name for a name in the files.
    """
    root = _root(path, [translate(tensor.name) for tensor in stored])
    outer = root.removesuffix(NAMES.prefix)
    entries: dict[str, Stored] = {}

    def add(name: str, tensor: Stored) -> None:
        if name in entries:
            raise UserError(f"{entries[name]} and {tensor} are the same tensor of the model; remove one of them")
        entries[name] = tensor

    for tensor in stored:
        name = _rename(translate(tensor.name), root, outer)
        if fused := _FUSED.fullmatch(name):
            for third, part in enumerate(_FUSED_PARTS):
                add(f"{fused[1]}.{part}.{fused[2]}", dataclasses.replace(tensor, part=(third, len(_FUSED_PARTS))))
        else:
            add(name, tensor)
    for name, twin in NAMES.twins.items():
        if twin in entries:
            entries.setdefault(name, entries[twin])
    if NAMES.embedding not in entries:
        raise UserError(f"{path}: {root}{NAMES.embedding.removeprefix(NAMES.prefix)} is missing; the file is "
                        "incomplete")
    return entries


def _root(path: pathlib.Path, names: Sequence[str]) -> str:
    """The prefix of the encoder's names, such as "bert.", "decoder.bert." or ""."""
    roots = {match[1] for name in names if (match := _ROOT.fullmatch(name))}
    if len(roots) != 1:
        found = f"several encoders ({', '.join(sorted(roots))})" if roots else "no embeddings.word_embeddings.weight"
        raise UserError(f"{path}: not the weights of one BERT encoder: {found} among its "
                        f"{format_plural(len(names), 'tensor')}, such as {', '.join(sorted(names)[:3]) or 'none'}; "
                        "weights of another architecture need a config.json beside them that names its model_type")
    root = roots.pop()
    relative = next((name for name in _RELATIVES if root.removesuffix(".").endswith(name)), "")
    if relative or any(name.startswith("lm_head.") for name in names):
        raise UserError(f"{path}: the weights of {relative or 'a relative of BERT, with an lm_head'}; only BERT can be "
                        "read without a config.json beside them that names another model_type")
    return root


def _rename(name: str, root: str, outer: str) -> str:
    head, _, leaf = name.rpartition(".")
    name = f"{head}.{_OLD_LEAVES.get(leaf, leaf)}"
    if name.startswith((f"{root}embeddings.", f"{root}encoder.", f"{root}pooler.")):
        return f"{NAMES.prefix}{name.removeprefix(root)}"
    return name.removeprefix(outer)


BERT = Conversion(NAMES, _REQUIRED, _ENCODER, "classic BERT, as SpanBERT is", rename, read, to_values, _CLASSES,
                  synonyms={"hidden_act": ("gelu_python",)})  # the same exact GELU, computed by other operations
