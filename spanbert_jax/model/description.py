"""A model as a checkpoint remembers it, so that its parameters can be read without the run's config and corpus."""
import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from spanbert_jax.common.types import is_of_type
from spanbert_jax.model.architectures import ARCHITECTURES
from spanbert_jax.model.config import ModelConfig
from spanbert_jax.model.heads.pretraining import PretrainingHeads

# Names of the fields of `PretrainingHeads` in a description.
_HEAD_FIELDS = {"boundary": "boundary_head", "boundary_positions": "boundary_positions",
                "boundary_features": "boundary_features", "next_sentence": "next_sentence_head"}
_MOST = {"num_layers": 1000}
_NEEDED = ("vocab_size", "num_layers", "width", "num_heads", "feed_forward")  # at least 1
# Written by older versions: how the model was computed, and whether it had a pooler without a head.
_IGNORED = ("dtype", "attention", "layers", "remat", "gradient_dtype", "pooler")


def describe_model(model: nn.Module) -> dict[str, Any]:
    """A JSON object that describes the encoder of a model, with `model.config`, and its pretraining heads."""
    head = getattr(model, "head", None)
    heads = head if isinstance(head, PretrainingHeads) else PretrainingHeads(boundary=False)
    return {"architecture": model.config.architecture, **dataclasses.asdict(model.config),
            **{name: getattr(heads, field) for field, name in _HEAD_FIELDS.items()}}


def read_description(values: Mapping[str, Any]) -> tuple[ModelConfig, PretrainingHeads]:
    """Config and heads of a description, also an older version's.

    Raises KeyError or TypeError if it is none, and UserError for an unknown architecture.
    """
    fields = {name: value for name, value in values.items() if name not in _IGNORED}
    heads = PretrainingHeads(**{field: fields.pop(name) for field, name in _HEAD_FIELDS.items()})
    config = ARCHITECTURES.get(fields.pop("architecture", "bert"))(**fields)
    for part in (config, heads):
        _check_types(part)
    return config, heads


def _check_types(part: Any) -> None:
    """Raises TypeError for fields of another type, and for sizes that no model has."""
    hints = typing.get_type_hints(type(part))
    for field in dataclasses.fields(part):
        value, least = getattr(part, field.name), field.name in _NEEDED
        if not is_of_type(hints[field.name], value) or (
                isinstance(value, int) and not least <= value <= _MOST.get(field.name, 1 << 31)):
            raise TypeError(f"{field.name} is {value!r}")
