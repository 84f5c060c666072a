"""What a network says of features: rows through the network, and its outputs put back where the features lie."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from spanbert_jax.model import EncoderDecoder, EncoderModel, Outputs, complete

# What is wanted of `model.Outputs`, by head.
_WANTED = {"question_answering": ("start_logits", "end_logits"), "sequence_classification": ("logits",),
           "token_classification": ("logits",)}
# Of a batch, what the network reads.
INPUTS = ("tokens", "segments", "token_types", "first")


def apply(model: EncoderModel | EncoderDecoder, params: Any, batch: Mapping[str, jax.Array],
          dropout_key: jax.Array | None = None) -> Outputs:
    """The outputs of packed rows; without a key, without dropout."""
    how = dict(deterministic=dropout_key is None, rngs={} if dropout_key is None else {"dropout": dropout_key})
    if isinstance(model, EncoderDecoder):
        logits = model.apply({"params": complete(params)}, batch["tokens"], batch["segments"], batch["previous"],
                             batch["label_segments"], **how)
        return Outputs(logits=logits)
    return model.apply({"params": params}, batch["tokens"], batch["segments"], batch["token_types"],
                       first=batch["first"], **how)


def head_outputs(model: EncoderModel) -> Callable[[Any, Mapping[str, jax.Array]], dict[str, jax.Array]]:
    """A function from parameters and packed rows to the outputs of the head."""
    def outputs(params: Any, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        found = apply(model, params, batch)
        return {name: getattr(found, name) for name in _WANTED[model.head]}

    return outputs


def has_entry_per_text(model: EncoderModel) -> bool:
    """Whether the outputs have an entry for each text of a row, and not for each position."""
    return model.head == "sequence_classification"


def inputs_of(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the network reads of a batch of packed rows."""
    return {name: batch[name] for name in INPUTS}
