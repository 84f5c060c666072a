"""The parts of a run: workload, model, mesh, optimiser."""
import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import jax
import optax
from jax.sharding import Mesh

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.files import cache_folder
from spanbert_jax.common.formatting import format_plural
from spanbert_jax.model import ComputeConfig, ModelConfig
from spanbert_jax.model.attention import BACKENDS, select_backend
from spanbert_jax.training.batch_warmup import FULL_BATCH, BatchWarmup
from spanbert_jax.training.config import RunConfig
from spanbert_jax.training.durations import RunSize
from spanbert_jax.training.mesh import Rules, check_batch, make_mesh, mesh_axes
from spanbert_jax.training.optimizers import make_optimizer
from spanbert_jax.training.schedules import learning_rate_schedule
from spanbert_jax.training.state import Network, TrainState, abstract_train_state
from spanbert_jax.training.workload import Workload

W = TypeVar("W", bound=Workload)


@dataclasses.dataclass(frozen=True)
class Experiment(Generic[W]):
    """The parts of a run that follow from its config and its data. It holds no arrays on devices."""
    config: RunConfig
    workload: W  # pretraining or a task
    size: RunSize  # converts durations to steps
    mesh: Mesh
    model: Network
    schedule: optax.Schedule  # of the learning rate
    optimizer: optax.GradientTransformation
    abstract_state: TrainState  # shapes and shardings
    batch_warmup: BatchWarmup = FULL_BATCH

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        assert self.size.total_steps is not None  # `build_experiment` sets it
        return self.size.total_steps

    @property
    def parameters(self) -> int:
        """Number of parameters of the model."""
        configs = [getattr(self.model, name) for name in ("config", "decoder_config") if hasattr(self.model, name)]
        return parameter_count(self.abstract_state.params, *configs)

    def steps(self, section: str, name: str) -> int:
        """The duration in a field of the config, in steps."""
        return self.size.steps(f"config.{section}.{name}", getattr(getattr(self.config, section), name))


def check_devices(config: RunConfig, devices: Sequence[jax.Device] | None = None) -> None:
    """Raises UserError unless mesh and batches fit all devices, or those given. Call it before preparing a corpus."""
    mesh, rules = make_mesh(config.mesh, devices), config.mesh.rules
    check_batch(mesh, rules, "config.train.batch_size", config.train.batch_size // config.train.accumulation)
    check_batch(mesh, rules, "config.evaluation.batch_size", config.evaluation.batch_size)


def build_experiment(config: RunConfig, workload: W, model: Network, mesh: Mesh, size: RunSize,
                     batch_warmup: BatchWarmup = FULL_BATCH) -> Experiment[W]:
    """Adds schedule, optimiser and abstract state to a workload and its model; the config gives the length of the run.

    Raises:
      UserError: schedule or batch warmup do not fit into the run, or a large parameter would be on every device.
    """
    steps_of = batch_warmup.steps_of
    total = size.steps("config.train.duration", config.train.duration, steps_of)
    if batch_warmup.steps > total:
        raise UserError(f"config.train.batch_warmup: the batch grows over {format_plural(batch_warmup.steps, 'step')}, "
                        f"and the run has {total:,}; shorten it")
    size = dataclasses.replace(size, total_steps=total)
    schedule = learning_rate_schedule(
        config.schedule.name, config.optimizer.learning_rate, total,
        size.steps("config.schedule.warmup", config.schedule.warmup, steps_of),
        size.steps("config.schedule.decay", config.schedule.decay), config.schedule.final_fraction)
    optimizer = make_optimizer(config.optimizer, schedule)
    return Experiment(config, workload, size, mesh, model, schedule, optimizer,
                      abstract_train_state(model, optimizer, mesh, config.mesh.rules, config.mesh.zero1), batch_warmup)


def with_attention(compute: ComputeConfig, model: ModelConfig, mesh: Mesh, rules: Rules, length: int) -> ComputeConfig:
    """Compute options with an attention backend: for "auto" the fastest that supports model, devices and rows.

    Raises:
      UserError: the named backend does not support them.
    """
    heads = model.num_heads // math.prod(mesh.shape[axis] for axis in mesh_axes(rules, "heads"))
    wanted = mesh.devices.flat[0].platform, length, heads, model.attention_specs, compute.dtype
    if compute.attention == "auto":
        return compute.replace(attention=select_backend(*wanted))
    if reason := BACKENDS.get(compute.attention).unsupported_reason(*wanted):
        raise UserError(f"config.compute.attention={compute.attention!r}: {reason}; use 'auto' or 'plain'")
    return compute


def parameter_count(params: Any, *configs: ModelConfig) -> int:
    """Number of parameters, without the rows that pad vocabularies."""
    rows = {config.padded_vocab_size: config.vocab_size for config in configs}
    return sum(leaf.size // leaf.shape[0] * rows.get(leaf.shape[0], leaf.shape[0])
               for leaf in jax.tree_util.tree_leaves(params))


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, in the user's cache folder unless JAX is configured otherwise."""
    if not jax.config.values["jax_compilation_cache_dir"]:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))
