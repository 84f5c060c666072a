"""ONNX, as onnxruntime and others run it, for any batch and length. The boundary head is not exported."""
from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from spanbert_jax.common.errors import UserError
from spanbert_jax.interop import layout
from spanbert_jax.interop.configuration import to_values
from spanbert_jax.interop.formats.huggingface import write_json, write_tokenizer
from spanbert_jax.model import EncoderModel

LIBRARY = "onnxruntime"
TOLERANCE = 1e-4
MODEL_FILE = "model.onnx"


def write(folder: pathlib.Path, model: EncoderModel, params: Any, tokenizer: Tokenizer | None) -> None:
    """Writes the directory.

    Raises:
      UserError: the onnx package is missing, or architecture or head have no ONNX graph.
    """
    try:
        from spanbert_jax.interop.formats import onnx_graph
    except ImportError:
        raise UserError("the onnx package is not installed: pip install 'spanbert-jax[onnx]'") from None
    graph = onnx_graph.build(model.config, model.head, dict(layout.tensors(model, params)))
    onnx_graph.save(graph, folder / MODEL_FILE)
    write_json(folder / "config.json", to_values(model))
    if tokenizer is not None:
        write_tokenizer(folder, tokenizer, model.config.max_positions)


def run(folder: pathlib.Path, model: EncoderModel, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of onnxruntime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / MODEL_FILE, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {name: value.astype(np.int64) for name, value in inputs.items()})))
