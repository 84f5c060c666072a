"""Defaults of the task protocol: a pretrained encoder with one head, or a module of a task's own around an encoder."""
from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import flax.traverse_util
import jax
import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from spanbert_jax.common.errors import UserError
from spanbert_jax.interop.continuation import initial_params as adapted_params
from spanbert_jax.interop.exporting import save_pretrained
from spanbert_jax.interop.pretrained import load_params, open_pretrained
from spanbert_jax.model import ComputeConfig, EncoderModel, ModelConfig, make_head, train_step_flops
from spanbert_jax.tasks.packing import PackedRows
from spanbert_jax.tasks.programs import Program

if TYPE_CHECKING:
    from spanbert_jax.tasks.protocol import Task

# Parameters outside the encoder of a task's own module, by their paths.
OWN_WEIGHTS_FILE = "task_head.safetensors"
_INPUTS = ("tokens", "segments", "token_types", "first")


def build_model(encoder: ModelConfig, compute: ComputeConfig, head: str, labels: tuple[str, ...]) -> EncoderModel:
    """An encoder with a head."""
    return EncoderModel(encoder, make_head(head, labels), compute)


def initial_params(model: nn.Module, init_from: str, tokenizer: Tokenizer, seed: int) -> dict[str, Any]:
    """Pretrained weights adapted to a model; parameters outside the encoder of a task's own module are random."""
    pretrained = open_pretrained(init_from)
    if isinstance(model, EncoderModel):
        return adapted_params(pretrained, model, tokenizer, seed)
    encoder = adapted_params(pretrained, EncoderModel(model.config), tokenizer, seed)["encoder"]
    params = jax.jit(model.init)(jax.random.key(seed), **model.dummy_inputs)["params"]
    return jax.device_get(nn.unbox(params)) | {"encoder": encoder}


def apply(model: nn.Module, params: Any, batch: Mapping[str, jax.Array],
          dropout_key: jax.Array | None = None) -> Any:
    """Outputs for packed rows; without dropout if there is no key."""
    return model.apply({"params": params}, batch["tokens"], batch["segments"], batch["token_types"],
                       first=batch["first"], deterministic=dropout_key is None,
                       rngs={} if dropout_key is None else {"dropout": dropout_key})


def select_inputs(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of packed rows that an encoder reads."""
    return {name: batch[name] for name in _INPUTS}


def head_program(task: Task, model: EncoderModel) -> Program:
    """Computes the outputs of a head."""
    def compute(params: Any, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        outputs = task.apply(model, params, batch)
        return {name: getattr(outputs, name) for name in model.head.outputs}

    return Program(compute, select_inputs, per_text=model.head.per_text)


def step_flops(model: nn.Module, rows: PackedRows, count: int) -> float:
    """Model FLOPs of a training step on `count` rows."""
    return train_step_flops(model.config, count, rows.length)


def save_weights(folder: pathlib.Path, model: nn.Module, params: Any, tokenizer: Tokenizer) -> None:
    """Writes a transformers directory, and parameters outside the encoder of a task's own module next to it."""
    if isinstance(model, EncoderModel):
        save_pretrained(model, params, folder, tokenizer)
        return
    save_pretrained(EncoderModel(model.config), {"encoder": params["encoder"]}, folder, tokenizer)
    own = {name: value for name, value in params.items() if name != "encoder"}
    flat = flax.traverse_util.flatten_dict(jax.device_get(own), sep="/")
    save_file({name: np.ascontiguousarray(value) for name, value in flat.items()}, folder / OWN_WEIGHTS_FILE)


def load_weights(task: Task, folder: pathlib.Path, dtype: str, tokenizer: Tokenizer) -> tuple[nn.Module, Any]:
    """Model and parameters from a folder of `save_weights`.

    Raises:
      UserError: the weights do not belong to the task.
    """
    pretrained = open_pretrained(folder)
    model = task.build_model(pretrained.config, ComputeConfig(dtype=dtype), tokenizer)
    if isinstance(model, EncoderModel):
        model = pretrained.model(task.head, dtype=dtype)
        if pretrained.head.name != task.head or tuple(task.labels) != model.head.labels:
            raise UserError(f"{folder}: the weights do not belong to the task in task.json; fetch both again")
        return model, load_params(pretrained, model)
    encoder = load_params(pretrained, EncoderModel(model.config))["encoder"]
    own = jax.device_put(flax.traverse_util.unflatten_dict(load_file(folder / OWN_WEIGHTS_FILE), sep="/"))
    return model, own | {"encoder": encoder}
