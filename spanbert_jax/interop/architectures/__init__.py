"""Tensor names and config.json of each architecture in Hugging Face's formats, one file each.

A further architecture is one file with a `Conversion` and a name in `CONVERSIONS`, that of `model.ARCHITECTURES`.
"""
import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.json_files import shown
from spanbert_jax.common.registry import Registry
from spanbert_jax.interop.naming import NamedTensors, Rename, TensorNames
from spanbert_jax.interop.sources.tensors import Tensors
from spanbert_jax.model import ARCHITECTURES, Head, ModelConfig, PretrainingHeads


@dataclasses.dataclass(frozen=True)
class StoredParts:
    """Config, head, pooler (whether there is one) and pretraining heads (whichever `head` is) of stored weights."""
    config: ModelConfig
    head: Head
    pooler: bool
    pretraining: PretrainingHeads


@dataclasses.dataclass(frozen=True)
class Conversion:
    """How an architecture is stored in Hugging Face's formats."""
    names: TensorNames  # of its tensors; every tensor has such a name once `rename` has been applied
    # Fields of a config.json and the only values that can be read, where it has them; "model_type" is one.
    required: Mapping[str, Any]
    encoder_only: Mapping[str, Any]  # the same, but not for a decoder with attention to an encoder
    described: str  # the architecture in words, for errors
    rename: Rename
    # From (tensors, config.json, its file) to what they hold; raises UserError if they contradict each other.
    read: Callable[[NamedTensors, Mapping[str, Any], pathlib.Path | None], StoredParts]
    to_values: Callable[[Any], dict[str, Any]]  # from a config to the fields of a config.json
    classes: Mapping[str | None, str]  # class of transformers by the name of the head; "decoder" is that of a decoder
    # From tensors by the architecture's names to the names and layouts of files.
    export: Callable[[Iterable[tuple[str, np.ndarray]]], Iterable[tuple[str, np.ndarray]]] = iter
    # Other names of a value in `required`, by field: {"hidden_act": ("gelu_python",)}.
    synonyms: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def tensors(self, path: pathlib.Path, files: Sequence[Tensors], prefix: str = "") -> NamedTensors:
        """Tensors of files by name; see `NamedTensors`."""
        return NamedTensors(path, files, self.names, self.rename, prefix)

    def check(self, values: Mapping[str, Any], file: pathlib.Path | None, decoder: bool = False) -> None:
        """Raises UserError if a config.json has an unreadable value; a `decoder` may have attention to an encoder."""
        for field, allowed in {**self.required, **({} if decoder else self.encoder_only)}.items():
            if values.get(field, allowed) not in (allowed, None, *self.synonyms.get(field, ())):
                raise UserError(f"{file}: {field} is {shown(values[field])}; only {allowed!r} can be read: "
                                f"{self.described}")


_HERE = "spanbert_jax.interop.architectures"
CONVERSIONS: Registry[Conversion] = Registry("architecture", "conversions", {
    "bert": f"{_HERE}.bert:BERT", "modernbert": f"{_HERE}.modernbert:MODERNBERT", "roberta": f"{_HERE}.roberta:ROBERTA",
    "xlm-roberta": f"{_HERE}.roberta:XLM_ROBERTA", "gpt2": f"{_HERE}.gpt2:GPT2"})


def conversion_of(config: ModelConfig) -> Conversion:
    """Returns the conversion of a config's architecture."""
    return CONVERSIONS.get(config.architecture)


def encoder_types() -> list[str]:
    """The model_type of every encoder that can be read."""
    return [CONVERSIONS.get(name).required["model_type"] for name in CONVERSIONS.names()
            if ARCHITECTURES.get(name).sizes]


def conversion_for(values: Mapping[str, Any], file: pathlib.Path | None, decoder: bool = False) -> Conversion:
    """Returns the conversion for the config.json of an encoder, or of a `decoder`; without a model_type that of BERT.

    Raises UserError for another model_type.
    """
    found = {one.required["model_type"]: one for one in map(CONVERSIONS.get, CONVERSIONS.names())}
    types = list(found) if decoder else encoder_types()
    if (model_type := values.get("model_type") or "bert") not in types:
        raise UserError(f"{file}: model_type is {model_type!r}; {', '.join(types)} can be read")
    return found[model_type]
