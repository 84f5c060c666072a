"""TensorFlow's SavedModel, for any batch and length, on CPU, GPU and TPU.

The model card shows how to run it. Keep the loaded model alive while its signature is used, since it owns the weights.
For TensorFlow Serving, make the directory version 1 of a model: put it at MODEL/1.
"""
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from tokenizers import Tokenizer

from spanbert_jax.common.errors import UserError
from spanbert_jax.interop.formats import stablehlo
from spanbert_jax.interop.formats.huggingface import write_config_and_tokenizer
from spanbert_jax.interop.sources.tensorflow_checkpoint import import_tensorflow
from spanbert_jax.model import EncoderModel

LIBRARY = "tensorflow"
TOLERANCE = 1e-4
_SIGNATURE = "serving_default"


def write(folder: pathlib.Path, model: EncoderModel, params: Any, tokenizer: Tokenizer | None) -> None:
    """Writes the directory. Raises UserError if TensorFlow is not installed."""
    tensorflow = import_tensorflow()
    from jax.experimental import jax2tf
    module = tensorflow.Module()
    with tensorflow.device("CPU"):  # JAX uses the other devices
        # Variables, since constants would be part of the graph, which is limited to 2 GB.
        module.weights = {name: tensorflow.Variable(np.asarray(value), name=name)
                          for name, value in stablehlo.flatten(params).items()}
    function = jax2tf.convert(
        stablehlo.as_function(model), polymorphic_shapes=[None] + ["(batch, sequence)"] * len(stablehlo.INPUTS),
        polymorphic_constraints=[f"sequence <= {model.config.max_positions}"], with_gradient=False,
        native_serialization_platforms=("cpu", "cuda", "tpu"))
    signature = tensorflow.function(
        lambda *inputs: function(module.weights, *inputs), autograph=False,
        input_signature=[tensorflow.TensorSpec([None, None], tensorflow.int32, name) for name in stablehlo.INPUTS])
    tensorflow.saved_model.save(module, folder, {_SIGNATURE: signature})
    write_config_and_tokenizer(folder, model, tokenizer)


def run(folder: pathlib.Path, model: EncoderModel, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the outputs of TensorFlow on the CPU. Raises UserError if it is too old for this JAX's StableHLO."""
    import tensorflow
    with tensorflow.device("CPU"):
        saved = tensorflow.saved_model.load(folder)
        tokens = {name: tensorflow.constant(inputs[name], tensorflow.int32) for name in stablehlo.INPUTS}
        try:
            return {name: value.numpy() for name, value in saved.signatures[_SIGNATURE](**tokens).items()}
        except tensorflow.errors.InvalidArgumentError as error:
            if "deserialize" not in str(error):
                raise
            raise UserError(f"TensorFlow {tensorflow.__version__} cannot read the StableHLO that JAX {jax.__version__} "
                            "writes; export with an older JAX (TensorFlow 2.21 reads that of 0.10), or install a newer "
                            "TensorFlow") from None
