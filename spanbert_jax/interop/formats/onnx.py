"""ONNX, as onnxruntime and others run it, for any batch and length. The boundary head is not exported."""
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from spanbert_jax.common.errors import UserError
from spanbert_jax.interop import layout
from spanbert_jax.interop.formats.huggingface import write_config_and_tokenizer
from spanbert_jax.model import EncoderModel

LIBRARY = "onnxruntime"
TOLERANCE = 1e-4
MODEL_FILE = "model.onnx"


def write(folder: pathlib.Path, model: EncoderModel, params: Any, tokenizer: Tokenizer | None) -> None:
    """Writes the directory. Raises UserError without the onnx package, or if architecture or head have no graph."""
    try:
        from spanbert_jax.interop.formats import onnx_graph
    except ImportError:
        raise UserError("the onnx package is not installed: pip install 'spanbert-jax[onnx]'") from None
    graph = onnx_graph.build(model.config, model.head, dict(layout.tensors(model, params)))
    onnx_graph.save(graph, folder / MODEL_FILE)
    write_config_and_tokenizer(folder, model, tokenizer)


def run(folder: pathlib.Path, model: EncoderModel, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the outputs of onnxruntime on the CPU."""
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; it warns of inputs with defaults
    session = onnxruntime.InferenceSession(folder / MODEL_FILE, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    given = {each.name: inputs[each.name].astype(np.int64) for each in session.get_inputs()}
    return dict(zip(names, session.run(names, given)))
