"""The weights in the workdir of a training run."""
import pathlib
import threading
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from spanbert_jax.checkpoints import Checkpointer
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.registry import load_plugins
from spanbert_jax.interop import layout
from spanbert_jax.interop.architectures import StoredParts
from spanbert_jax.interop.sources.tensors import Tensors
from spanbert_jax.model import EncoderModel, MaskedLm, read_description


class _Checkpoint:
    """The parameters of a checkpoint as tensors. All are restored when the first is read, from any thread."""

    def __init__(self, path: pathlib.Path, step: int, model: EncoderModel):
        self.path, self._step, self._model = path, step, model
        self.shapes = {name: leaf.tensor_shape for leaf in layout.leaves(model) for name in leaf.names}
        self._values: dict[str, np.ndarray] = {}
        self._lock = threading.Lock()

    def read(self, name: str) -> np.ndarray:
        """One tensor."""
        with self._lock:
            if not self._values:
                sharding = _one_device_a_process()
                abstract = layout.build(
                    self._model, lambda leaf: jax.ShapeDtypeStruct(leaf.shape, np.float32, sharding=sharding))
                with Checkpointer(self.path, read_only=True) as checkpointer:
                    params = checkpointer.restore_params(self._step, abstract)
                self._values = dict(layout.tensors(self._model, params))
        return self._values[name]


def read_workdir(path: pathlib.Path, step: int | None = None) -> tuple[Tensors, StoredParts, dict[str, Any]]:
    """Reads the parameters in a checkpoint of a run, verified against their checksums. Every process must call it.

    Returns the parameters as tensors; their model; and "step", "config" and "corpus" as the run remembers them. The
    newest valid checkpoint is read if `step` is None. Raises UserError if there is no valid one.
    """
    with Checkpointer(path, read_only=True) as checkpointer:
        chosen = checkpointer.latest_valid(step)
        metadata = checkpointer.metadata(chosen)
        load_plugins(metadata.get("config", {}).get("plugins", ()), path)
        if "task" in metadata.get("config", {}):
            raise UserError(f"{path}: an unfinished fine-tuning run; run its command again, and the model will be in "
                            f"{path / 'model'}")
        try:
            config, heads = read_description(metadata["network"])
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}: the checkpoint of step {chosen} does not describe its model ({error}); resume "
                            "the run for one step with this version, which saves it again") from None
    head = heads if heads.boundary or heads.next_sentence else MaskedLm()
    stored = StoredParts(config, head, pooler=False, pretraining=heads)
    return _Checkpoint(path, chosen, EncoderModel(config, heads)), stored, {"step": chosen, **metadata}


def _one_device_a_process() -> NamedSharding:
    """Replicates every array on one device of each process."""
    first = {device.process_index: device for device in reversed(jax.devices())}
    # Not jax.make_mesh, which takes no devices of several TPU slices.
    mesh = Mesh(np.array([first[process] for process in sorted(first)]), ("processes",), axis_types=(AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec())
