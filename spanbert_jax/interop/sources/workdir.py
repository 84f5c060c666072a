"""The weights in the workdir of a training run."""
from __future__ import annotations

import pathlib
import threading
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from spanbert_jax.checkpoints import Checkpointer
from spanbert_jax.common.errors import UserError
from spanbert_jax.interop import layout
from spanbert_jax.interop.sources.tensors import Tensors
from spanbert_jax.model import EncoderModel, ModelConfig


class _Checkpoint:
    """The parameters of a checkpoint as tensors. All are restored when the first is asked for, from any thread."""

    def __init__(self, path: pathlib.Path, step: int, model: EncoderModel):
        self.path, self._step, self._model = path, step, model
        self.shapes = {name: leaf.tensor_shape for leaf in layout.leaves(model) for name in leaf.names}
        self._values: dict[str, np.ndarray] = {}
        self._lock = threading.Lock()

    def read(self, name: str) -> np.ndarray:
        """One tensor."""
        with self._lock:
            if not self._values:
                self._values = dict(layout.tensors(self._model, self._restore()))
        return self._values[name]

    def _restore(self) -> Any:
        sharding = _one_device_a_process()
        with Checkpointer(self.path, read_only=True) as checkpointer:
            return checkpointer.restore_params(self._step, layout.build(
                self._model, lambda leaf: jax.ShapeDtypeStruct(leaf.shape, np.float32, sharding=sharding)))


def read_workdir(path: pathlib.Path, step: int | None = None) -> tuple[Tensors, ModelConfig, dict[str, Any]]:
    """The parameters of a checkpoint of a run as tensors, their network, and the facts of the run.

    Bytes and arrays are compared with what was saved. In a run of many processes every one must call.

    Args:
      step: of the checkpoint; the newest sound one if not given.

    Returns:
      Tensors; the network; "step", "config" and "corpus" as the run remembers them.

    Raises:
      UserError: when there is no sound checkpoint.
    """
    with Checkpointer(path, read_only=True) as checkpointer:
        chosen = checkpointer.latest_valid(step)
        metadata = checkpointer.metadata(chosen)
        if "task" in metadata.get("config", {}):
            raise UserError(f"{path}: a run of a task that has not finished; start its command again, and what it "
                            f"makes will be in {path / 'model'}")
        try:
            config = ModelConfig(**metadata["network"])
        except (KeyError, TypeError):
            raise UserError(f"{path}: the checkpoint of step {chosen} does not say what network it is of; go on with "
                            "its run for a step with this version, which saves it anew") from None
    return _Checkpoint(path, chosen, EncoderModel(config, "pretraining")), config, {"step": chosen, **metadata}


def _one_device_a_process() -> NamedSharding:
    """Every array whole on one device of each process."""
    first = {device.process_index: device for device in reversed(jax.devices())}
    # Not jax.make_mesh, which takes no devices of several TPU slices.
    mesh = Mesh(np.array([first[process] for process in sorted(first)]), ("processes",), axis_types=(AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec())
