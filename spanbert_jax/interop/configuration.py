"""Hugging Face's config.json and our `ModelConfig`: what the network is, from both its config and its tensors."""
from __future__ import annotations

import json
import math
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from spanbert_jax.common.errors import UserError
from spanbert_jax.interop.layout import EMBEDDING
from spanbert_jax.interop.naming import NamedTensors
from spanbert_jax.interop.sources.location import PAIR
from spanbert_jax.model import EncoderModel, ModelConfig

CONFIG_FILES = ("config.json", "bert_config.json")
# Ours -> Hugging Face's.
_FIELDS = {
    "vocab_size": "vocab_size", "num_layers": "num_hidden_layers", "width": "hidden_size",
    "num_heads": "num_attention_heads", "feed_forward": "intermediate_size",
    "max_positions": "max_position_embeddings", "token_types": "type_vocab_size", "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob", "layer_norm_epsilon": "layer_norm_eps",
    "initializer_range": "initializer_range", "clamp_attention": "clamp_attention",
}
PREFIX = "prefix"
_SHARES = ("hidden_dropout_prob", "attention_probs_dropout_prob", "resid_pdrop", "attn_pdrop")
_SMALL = ("layer_norm_eps", "layer_norm_epsilon", "initializer_range")
# What must be so, where it is said at all.
_REQUIRED = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
_ENCODER = {"is_decoder": False, "add_cross_attention": False}
ARCHITECTURES = {
    None: "BertModel", "masked_lm": "BertForMaskedLM", "pretraining": "BertForPreTraining",
    "question_answering": "BertForQuestionAnswering", "sequence_classification": "BertForSequenceClassification",
    "token_classification": "BertForTokenClassification",
}
# The width of a head where no config says how many there are: that of every published BERT.
_HEAD_WIDTH = 64


def read_values(directory: pathlib.Path) -> tuple[dict[str, Any], pathlib.Path | None]:
    """The config that lies in a directory and its file; nothing where there is none.

    Of an encoder with a decoder it is the encoder's, and `PREFIX` what the names of its tensors begin with.

    Raises:
      UserError: when it is not a JSON object, or describes another architecture.
    """
    file = next((directory / name for name in CONFIG_FILES if (directory / name).is_file()), None)
    if file is None:
        return {}, None
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not JSON ({error}); fetch it again") from None
    if not isinstance(values, dict):
        raise UserError(f"{file}: not a JSON object; it should describe a BERT network")
    if values.get("model_type") == PAIR and isinstance(values.get("encoder"), dict):
        values = {**values["encoder"], PREFIX: "encoder."}
    check_bert(values, file)
    return values, file


def check_bert(values: Mapping[str, Any], file: pathlib.Path, decoder: bool = False) -> None:
    """Refuses the config of another architecture than BERT's.

    Args:
      decoder: whether it is of BERT with attention to an encoder.

    Raises:
      UserError: naming the field.
    """
    check_required(values, file, _REQUIRED if decoder else _REQUIRED | _ENCODER, "classic BERT, as SpanBERT is")


def check_required(values: Mapping[str, Any], file: pathlib.Path, required: Mapping[str, Any], what: str) -> None:
    """Refuses a config that says otherwise.

    Raises:
      UserError: naming the field.
    """
    for field, allowed in required.items():
        if values.get(field, allowed) not in (allowed, None):
            raise UserError(f"{file}: {field} is {values[field]!r}; only {allowed!r} can be read: {what}")


def network(tensors: NamedTensors, values: Mapping[str, Any], file: pathlib.Path | None, dtype: str) -> ModelConfig:
    """The network that tensors are of, with all heads that they have.

    Args:
      values, file: as `read_values` gives them; what they leave out is read from the shapes.
      dtype: of the computation.

    Raises:
      UserError: when config and tensors contradict each other, or neither says how many heads there are.
    """
    fields = _from_shapes(tensors)
    for ours, theirs in _FIELDS.items():
        stated = values.get(theirs)
        if stated is None:
            continue
        check_value(file, theirs, stated)
        # Tables are sometimes padded beyond the vocabulary that the config states.
        if ours in fields and stated != fields[ours] and not (ours == "vocab_size" and stated < fields[ours]):
            raise UserError(f"{file}: {theirs} is {stated}, but the tensors of {tensors.path} have {fields[ours]}")
        fields[ours] = stated
    if "num_heads" not in fields:
        if fields["width"] % _HEAD_WIDTH:
            raise UserError(f"{tensors.path}: no config.json beside it says how many attention heads there are, and "
                            f"{fields['width']} is no multiple of {_HEAD_WIDTH}; add one with num_attention_heads")
        fields["num_heads"] = fields["width"] // _HEAD_WIDTH
    if fields["width"] % fields["num_heads"]:
        raise UserError(f"{file}: num_attention_heads is {fields['num_heads']}, which does not divide hidden_size="
                        f"{fields['width']}")
    return ModelConfig(**fields, dtype=dtype)


def check_value(file: pathlib.Path | None, field: str, value: Any) -> None:
    """Refuses what no network can have, BERT or GPT-2.

    Raises:
      UserError: naming the field.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if field == "clamp_attention":
        allowed, holds = "true or false", isinstance(value, bool)
    elif field in _SHARES:
        allowed, holds = "a number from 0 to below 1", number and 0 <= value < 1
    elif field in _SMALL:
        allowed, holds = "a number above 0", number and 0 < value < math.inf
    else:
        allowed, holds = "a whole number above 0", number and isinstance(value, int) and value > 0
    if not holds:
        raise UserError(f"{file}: {field} is {value!r}; {allowed} is needed")


def _from_shapes(tensors: NamedTensors) -> dict[str, Any]:
    def shape(name: str) -> tuple[int, ...]:
        found = tensors.shapes.get(name)
        if found is None or len(found) != 2:
            problem = "is missing" if found is None else f"is {list(found)}, which has not two axes"
            raise UserError(f"{tensors.path}: {name} {problem}; the file is not whole, or not of a BERT network")
        return found

    layers = [int(match[1]) for name in tensors.shapes if (match := re.match(r"bert\.encoder\.layer\.(\d+)\.", name))]
    if not layers:
        raise UserError(f"{tensors.path}: bert.encoder.layer.0 is missing; the file is not whole")
    fields = {
        "num_layers": max(layers) + 1, "feed_forward": shape("bert.encoder.layer.0.intermediate.dense.weight")[0],
        "max_positions": shape("bert.embeddings.position_embeddings.weight")[0],
        "token_types": shape("bert.embeddings.token_type_embeddings.weight")[0],
        "next_sentence_head": "cls.seq_relationship.weight" in tensors.shapes,
        "pooler": "bert.pooler.dense.weight" in tensors.shapes,
    }
    fields["vocab_size"], fields["width"] = shape(EMBEDDING)
    place = "cls.pair_target_predictions.position_embeddings.weight"
    fields["boundary_head"] = place in tensors.shapes
    if fields["boundary_head"]:
        fields["boundary_positions"], fields["boundary_features"] = shape(place)
    return fields


def stored_head(tensors: NamedTensors, values: Mapping[str, Any]) -> str | None:
    """The head that comes with the tensors, one of `model.HEADS`."""
    has = tensors.shapes.__contains__
    if has("cls.predictions.transform.dense.weight"):
        both = has("cls.seq_relationship.weight") or has("cls.pair_target_predictions.position_embeddings.weight")
        return "pretraining" if both else "masked_lm"
    if has("qa_outputs.weight"):
        return "question_answering"
    if not has("classifier.weight"):
        return None
    by_name = {architecture: head for head, architecture in ARCHITECTURES.items()}
    if stated := values.get("architectures"):
        return by_name.get(stated[0])  # or a classifier of some other kind
    return "sequence_classification" if has("bert.pooler.dense.weight") else "token_classification"


def stored_labels(tensors: NamedTensors, values: Mapping[str, Any], file: pathlib.Path | None) -> tuple[str, ...]:
    """Names of the classes of the stored classification head, if there is one.

    Raises:
      UserError: when the config names another number of classes than there are.
    """
    if "classifier.weight" not in tensors.shapes:
        return ()
    numbers = [str(number) for number in range(tensors.shapes["classifier.weight"][0])]
    named = values.get("id2label") or {number: f"LABEL_{number}" for number in numbers}
    if not isinstance(named, dict) or named.keys() != set(numbers):
        raise UserError(f"{file}: id2label does not name, from 0 on, the {len(numbers)} classes that classifier.weight "
                        f"of {tensors.path} has")
    return tuple(str(named[number]) for number in numbers)


def architecture_of(model: EncoderModel) -> str:
    """The class of transformers that a network is."""
    if model.head == "pretraining" and not model.config.next_sentence_head:
        return ARCHITECTURES["masked_lm"]
    return ARCHITECTURES[model.head]


def to_values(model: EncoderModel) -> dict[str, Any]:
    """A network as a config.json of transformers."""
    config = model.config
    values = {"architectures": [architecture_of(model)], **_REQUIRED, **_ENCODER}
    values |= {theirs: getattr(config, ours) for ours, theirs in _FIELDS.items()}
    if model.head in ("sequence_classification", "token_classification"):
        values["id2label"] = {str(number): label for number, label in enumerate(model.labels)}
        values["label2id"] = {label: number for number, label in enumerate(model.labels)}
    return values | {"pad_token_id": 0, "tie_word_embeddings": True, "torch_dtype": "float32"}
