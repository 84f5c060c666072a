"""StableHLO by `jax.export`: one function for any batch and length, on CPU, GPU and TPU, without our code.

The model card shows how to run it. The weights are in our own layout, so that no call has to transpose them.
"""
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from safetensors.flax import load_file, save_file
from tokenizers import Tokenizer

from spanbert_jax.common.files import usual_mode
from spanbert_jax.interop.formats.huggingface import write_config_and_tokenizer
from spanbert_jax.interop.pretrained import PARAMS_FILE
from spanbert_jax.model import EncoderModel

LIBRARY = "jax"
TOLERANCE = 2e-5
MODEL_FILE = "model.stablehlo"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def write(folder: pathlib.Path, model: EncoderModel, params: Any, tokenizer: Tokenizer | None) -> None:
    """Writes the directory."""
    weights = flatten(params)
    batch, sequence = jax.export.symbolic_shape(
        "batch, sequence", constraints=[f"sequence <= {model.config.max_positions}"])
    tokens = jax.ShapeDtypeStruct((batch, sequence), jnp.int32)
    shapes = jax.tree.map(lambda value: jax.ShapeDtypeStruct(value.shape, value.dtype), weights)
    exported = jax.export.export(jax.jit(as_function(model)), platforms=("cpu", "cuda", "tpu"))(
        shapes, *[tokens] * len(INPUTS))
    (folder / MODEL_FILE).write_bytes(exported.serialize())
    with usual_mode(folder / PARAMS_FILE) as path:
        save_file(weights, path)
    write_config_and_tokenizer(folder, model, tokenizer)


def flatten(params: Any) -> dict[str, jax.Array]:
    """Returns parameters by names such as encoder/layers/attention/query/kernel."""
    return flax.traverse_util.flatten_dict(nn.unbox(params), sep="/")


def as_function(model: EncoderModel) -> Callable[..., dict[str, jax.Array]]:
    """Returns a function from flat parameters and inputs to a dictionary of the outputs that the model has."""
    def outputs(weights: dict[str, jax.Array], *inputs: jax.Array) -> dict[str, jax.Array]:
        params = flax.traverse_util.unflatten_dict(weights, sep="/")
        outputs: Any = model.apply({"params": params}, *inputs)
        return {name: value for name, value in outputs._asdict().items() if value is not None}

    return outputs


def run(folder: pathlib.Path, model: EncoderModel, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the outputs of the file with the exported weights."""
    exported = jax.export.deserialize(bytearray((folder / MODEL_FILE).read_bytes()))
    tokens = [jnp.asarray(inputs[name], jnp.int32) for name in INPUTS]
    outputs = exported.call(load_file(folder / PARAMS_FILE), *tokens)
    return {name: np.asarray(value) for name, value in outputs.items()}
