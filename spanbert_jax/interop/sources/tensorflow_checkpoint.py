"""Checkpoints of Google's BERT for TensorFlow: bert_model.ckpt.index and bert_model.ckpt.data-00000-of-00001."""
import os
import pathlib
import re
import threading
from types import ModuleType

import numpy as np

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.formatting import format_plural
from spanbert_jax.interop.sources.tensors import check_shapes

# Heads that are fine-tuned have names of their own in Google's scripts run_classifier.py and run_squad.py.
_FINE_TUNED = {"output_weights": "classifier.weight", "output_bias": "classifier.bias",
               "cls/squad/output_weights": "qa_outputs.weight", "cls/squad/output_bias": "qa_outputs.bias"}
# The last part of a weight's name; optimisers put theirs after it (kernel/adam_m), so that those end otherwise.
_LEAVES = {"kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias", "output_weights": "weight",
           "output_bias": "bias"} | {
    table: f"{table}.weight" for table in ("word_embeddings", "position_embeddings", "token_type_embeddings")}
# What TensorFlow reads when it is imported.
_ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}


class TensorFlowCheckpoint:
    """The weights in a checkpoint, in Hugging Face's names and layouts.

    Optimizer slots, the step and variables that are not BERT's are left out. Implements the protocol `Tensors`.
    """

    def __init__(self, path: pathlib.Path):
        """Reads names and shapes from a .index file. Raises UserError without TensorFlow, or if files are damaged."""
        tensorflow = import_tensorflow()
        self.path = path
        prefix = path.with_suffix("")
        self._data = sorted(file.name for file in path.parent.iterdir() if file.name.startswith(f"{prefix.name}.data-"))
        if not self._data:
            raise UserError(f"{prefix}.data-00000-of-00001 is missing; it belongs to {path.name}: fetch it")
        try:
            # Not train.load_checkpoint, which prefers a folder of the same name.
            self._reader = tensorflow.compat.v1.train.NewCheckpointReader(str(prefix))
            stored = self._reader.get_variable_to_shape_map()
        except Exception as error:  # TensorFlow raises nearly anything when a file is damaged
            raise UserError(f"{path}: not a whole TensorFlow checkpoint ({_line(error)}); fetch it again") from None
        self._stored_name = {name: variable for variable in stored if (name := _hugging_face_name(variable))}
        if not self._stored_name:
            raise UserError(f"{path}: {format_plural(len(stored), 'variable')}, and none of Google's BERT, such as "
                            f"bert/embeddings/word_embeddings; there are {', '.join(sorted(stored)[:3]) or 'none'}")
        self.shapes = {name: tuple(stored[variable][::-1] if variable.endswith("/kernel") else stored[variable])
                       for name, variable in self._stored_name.items()}
        check_shapes(path, self.shapes, sum((path.parent / name).stat().st_size for name in self._data))
        self._lock = threading.Lock()  # TensorFlow asks for one around its reader

    def read(self, name: str) -> np.ndarray:
        """Returns a tensor, perhaps a view, in the dtype that it is stored in. Raises UserError if it is unreadable."""
        variable = self._stored_name[name]
        try:
            with self._lock:
                value = self._reader.get_tensor(variable)
        except Exception as error:  # as above
            raise UserError(f"{self.path}: {variable} cannot be read from {', '.join(self._data)} ({_line(error)}); "
                            "fetch the checkpoint again") from None
        return value.T if variable.endswith("/kernel") else value  # kernels are stored [in, out]


def import_tensorflow() -> ModuleType:
    """Imports TensorFlow, silenced, and without its reservation of all GPU memory. Raises UserError if that fails."""
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    try:
        import tensorflow
    except ImportError as error:
        raise UserError(f"TensorFlow cannot be imported ({_line(error)}): pip install 'spanbert-jax[tensorflow]'"
                        ) from None
    return tensorflow


def _hugging_face_name(variable: str) -> str | None:
    """Hugging Face's name of a variable; None if it is not a weight of BERT."""
    scope, _, leaf = variable.rpartition("/")
    if variable in _FINE_TUNED or leaf not in _LEAVES or not scope.startswith(("bert/", "cls/")):
        return _FINE_TUNED.get(variable)
    module = re.sub("/layer_([0-9]+)/", r"/layer/\1/", scope).replace("/", ".")
    return f"{module}.{_LEAVES[leaf]}"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
