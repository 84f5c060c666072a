"""Hugging Face's config.json: reading, checking and writing."""
import pathlib
from collections.abc import Mapping
from typing import Any, TypedDict

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.formatting import format_plural
from spanbert_jax.common.json_files import read_json, shown
from spanbert_jax.interop.architectures import conversion_of
from spanbert_jax.interop.sources.location import PAIR
from spanbert_jax.model import EncoderModel
from spanbert_jax.model.heads import PROBLEM_TYPES

CONFIG_FILES = ("config.json", "bert_config.json")
PREFIX = "prefix"
_MAX_LABELS = 100_000
_RATES = ("hidden_dropout_prob", "attention_probs_dropout_prob", "resid_pdrop", "attn_pdrop", "embedding_dropout",
          "attention_dropout", "mlp_dropout", "classifier_dropout")
_POSITIVE = ("layer_norm_eps", "layer_norm_epsilon", "norm_eps", "initializer_range", "initializer_cutoff_factor",
             "global_rope_theta", "local_rope_theta")
_FLAGS = ("clamp_attention", "norm_bias", "attention_bias", "mlp_bias", "classifier_bias")
_CHOICES = {"classifier_pooling": ("cls", "mean")}


class ConfigFile(TypedDict, total=False):
    """Types of fields of config.json. `check_value` has those of numbers and flags."""
    model_type: str | None
    architectures: list[str] | None
    problem_type: str | None
    id2label: dict[str, Any] | None
    tokenizer_class: str | None
    encoder: "ConfigFile"  # of an encoder with a decoder
    decoder: "ConfigFile"


def read_config_file(file: pathlib.Path) -> dict[str, Any]:
    """Returns the fields of a config.json. Raises FileNotFoundError, or UserError if it is not one."""
    return {**read_json(file, ConfigFile)}


def read_values(directory: pathlib.Path) -> tuple[dict[str, Any], pathlib.Path | None]:
    """Returns the config.json in a directory and its path; {} and None if there is none.

    For an encoder with a decoder it is the encoder's config, and `PREFIX` the prefix of the encoder's tensors. Raises
    UserError if the file is not a JSON object.
    """
    file = next((directory / name for name in CONFIG_FILES if (directory / name).is_file()), None)
    if file is None:
        return {}, None
    values = read_config_file(file)
    if values.get("model_type") == PAIR and "encoder" in values:
        values = {**values["encoder"], PREFIX: "encoder."}
    return values, file


def check_value(file: pathlib.Path | None, field: str, value: Any) -> None:
    """Raises UserError if the type or the range of a field is wrong."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if field in _FLAGS:
        allowed, holds = "true or false", isinstance(value, bool)
    elif field in _CHOICES:
        allowed, holds = " or ".join(map(repr, _CHOICES[field])), value in _CHOICES[field]
    elif field in _RATES:
        allowed, holds = "a number from 0 to below 1", number and 0 <= value < 1
    elif field in _POSITIVE:
        allowed, holds = "a number above 0 and below 1e9", number and 0 < value < 1e9
    else:
        allowed = "a whole number above 0 and below 2^31"
        holds = number and isinstance(value, int) and 0 < value < 1 << 31
    if not holds:
        raise UserError(f"{file}: {field} is {shown(value)}; {allowed} is needed")


def stored_labels(count: int, values: Mapping[str, Any], file: pathlib.Path | None, where: str) -> tuple[str, ...]:
    """Returns the names of the `count` classes of a tensor at `where`. Raises UserError if config.json has others."""
    if count > _MAX_LABELS:
        raise UserError(f"{where}: {count:,} classes; {_MAX_LABELS:,} are the most")
    numbers = [str(number) for number in range(count)]
    named = values.get("id2label") or {number: f"LABEL_{number}" for number in numbers}
    if named.keys() != set(numbers):
        raise UserError(f"{file}: id2label does not name, from 0 on, the "
                        f"{format_plural(count, 'class')} that {where} has")
    return tuple(str(named[number]) for number in numbers)


def stored_problem_type(values: Mapping[str, Any], file: pathlib.Path | None) -> str | None:
    """Returns the problem_type of a config.json, None if it has none. Raises UserError for one of another name."""
    if (stated := values.get("problem_type")) not in (None, *PROBLEM_TYPES):
        raise UserError(f"{file}: problem_type is {shown(stated)}; allowed are {', '.join(PROBLEM_TYPES)}")
    return stated


def transformers_class(model: EncoderModel) -> str:
    """Returns the name of transformers' class for a model. Raises UserError if there is none for its head."""
    classes, name = conversion_of(model.config).classes, model.head.exported_name
    if name not in classes:
        raise UserError(f"head {name!r}: transformers has no class for a {model.config.architecture} with it; allowed "
                        f"are {', '.join(map(repr, classes))}")
    return classes[name]


def to_values(model: EncoderModel) -> dict[str, Any]:
    """Returns the config.json of a model."""
    values = {"architectures": [transformers_class(model)], **conversion_of(model.config).to_values(model.config)}
    if labels := model.head.labels:
        values["id2label"] = {str(number): label for number, label in enumerate(labels)}
        values["label2id"] = {label: number for number, label in enumerate(labels)}
    if model.head.problem_type:
        values["problem_type"] = model.head.problem_type
    return values | {"tie_word_embeddings": True, "torch_dtype": "float32"}
