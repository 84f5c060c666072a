"""Compiling the real step of a run for a topology, and reading what the compiler says of it."""
from __future__ import annotations

import collections
import dataclasses
import math
import re
import time
from typing import Any

import jax
import ml_collections

from spanbert_jax.common.errors import UserError
from spanbert_jax.planning.compiler.activations import activation_bytes
from spanbert_jax.planning.compiler.hlo import Collective, Program
from spanbert_jax.planning.compiler.workload import Facts, abstract_batch, abstract_stop_flags, stand_in
from spanbert_jax.planning.hardware import Chip, Topology
from spanbert_jax.pretraining.workload import build
from spanbert_jax.training.experiment import Experiment, check_devices, parameter_count
from spanbert_jax.training.mesh import mesh_axes
from spanbert_jax.training.step import make_train_step

# Of the masker's loop, whose end depends on the text: about three tokens to a span.
_MASKED_PER_TRIP = 3
# What the compiler gives no cycles for although it takes time.
_SILENT = ("rng-bit-generator", "sort", "scatter", "gather")
# Share of the memory's bandwidth that is sustained, and the share of the compiler's cycles that is never gone below.
SUSTAINED, LEAST = 0.85, 0.25


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler says of a step, for one device.

    Attributes:
      rows: on a device in one part of a step.
      length: S.
      parameters: of the whole network.
      attention: how it is computed.
      heads: on a device.
      remat, accumulation: of the config, as they are worth telling.
      flops: of the model, for one device and step.
      seconds: that the compiler took.
      parameter_bytes, optimizer_bytes, batch_bytes: the arguments of the step, as laid out on a device.
      activation_bytes: what the forward pass keeps for the backward pass.
      temporary_bytes: all that is neither argument nor program, activations included.
      program_bytes: the code.
      product_cycles: of the matrix products, with what is fused to them; None where the compiler counts none.
      other_cycles: of all the rest but kernels.
      other_cycles_by_memory: the same, each limited to the time that its memory traffic takes.
      kernels: runs of each kernel of our own or JAX's.
      silent: runs of operations that the compiler gives no time for, by kind.
      collectives: as in the program.
    """
    rows: int
    length: int
    parameters: int
    attention: str
    heads: int
    remat: str
    accumulation: int
    flops: float
    seconds: float
    parameter_bytes: int
    optimizer_bytes: int
    batch_bytes: int
    activation_bytes: int
    temporary_bytes: int
    program_bytes: int
    product_cycles: float | None
    other_cycles: float
    other_cycles_by_memory: float
    kernels: dict[str, float]
    silent: dict[str, float]
    collectives: tuple[Collective, ...]


@dataclasses.dataclass(frozen=True)
class TooLarge:
    """What the compiler says of a step that does not fit.

    Attributes:
      needed: bytes; 0 where it does not say.
      available: bytes.
    """
    needed: float
    available: float


def compile_step(config: ml_collections.ConfigDict, facts: Facts, topology: Topology,
                 devices: list[jax.Device]) -> Compiled | TooLarge:
    """Compiles the step of a run for devices that need not be there.

    Raises:
      UserError: as a run would, when the config does not go with the devices.
    """
    check_devices(config, devices)
    experiment = build(config, stand_in(facts, config), devices)
    step = make_train_step(config, experiment.workload.objective, experiment.optimizer, experiment.schedule,
                           experiment.abstract_state, experiment.mesh)
    batch = abstract_batch(experiment)
    began = time.monotonic()
    with jax.set_mesh(experiment.mesh):
        lowered = step.lower(experiment.abstract_state, batch, abstract_stop_flags(experiment))
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            return _too_large(str(error), _bytes_on_a_device((experiment.abstract_state, batch)), topology.chip)
    return _describe(experiment, batch, compiled, topology, time.monotonic() - began)


def _too_large(message: str, arguments: int, chip: Chip) -> TooLarge:
    """Reads the compiler's refusal; `arguments` are the bytes of those of the step."""
    if match := re.search(r"HLO temporaries \(([0-9.]+[KMGT]?)\) exceeds available HBM \(([0-9.]+[KMGT]?)\)", message):
        return TooLarge(_size(match[1]) + arguments, _size(match[2]))
    if match := re.search(r"Used ([0-9.]+[KMGT]?) of ([0-9.]+[KMGT]?) hbm", message):
        return TooLarge(_size(match[1]), _size(match[2]))
    if "RESOURCE_EXHAUSTED" in message:
        return TooLarge(0.0, chip.memory)
    raise UserError(f"the compiler gave up: {' '.join(message.split())[:300]}")


def _size(text: str) -> float:
    """Bytes in a size such as 15.75G."""
    units = {"K": 2.0**10, "M": 2.0**20, "G": 2.0**30, "T": 2.0**40}
    return float(text.rstrip("KMGT")) * units.get(text[-1], 1.0)


def _describe(experiment: Experiment, batch: Any, compiled: Any, topology: Topology, seconds: float) -> Compiled:
    config, network, learning = experiment.config, experiment.model.config, experiment.workload
    memory, program = compiled.memory_analysis(), Program(compiled.as_text())
    abstract, accumulation, masked = experiment.abstract_state, config.train.accumulation, learning.masker.max_masked
    ways = {name: math.prod(experiment.mesh.shape[axis] for axis in mesh_axes(config.mesh.rules, name))
            for name in ("batch", "heads")}
    trips = masked / _MASKED_PER_TRIP
    kernels, silent = _uncounted(program, trips)
    products, others, by_memory = _cycles(program, topology.chip, trips)
    return Compiled(
        rows=config.train.batch_size // accumulation // ways["batch"], length=learning.length,
        parameters=parameter_count(abstract.params, network), attention=network.attention,
        heads=network.num_heads // ways["heads"], remat=network.remat, accumulation=accumulation,
        flops=learning.flops / topology.chips, seconds=seconds,
        parameter_bytes=_bytes_on_a_device(abstract.params), optimizer_bytes=_bytes_on_a_device(abstract.opt_state),
        batch_bytes=_bytes_on_a_device(batch), activation_bytes=activation_bytes(program),
        temporary_bytes=memory.temp_size_in_bytes, program_bytes=memory.generated_code_size_in_bytes,
        product_cycles=products, other_cycles=others, other_cycles_by_memory=by_memory, kernels=kernels, silent=silent,
        collectives=tuple(program.collectives(trips, topology.slice_size, topology.slices)))


def _bytes_on_a_device(tree: Any) -> int:
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _cycles(program: Program, chip: Chip, trips: float) -> tuple[float | None, float, float]:
    """Cycles of the matrix products, of the rest, and of the rest as its memory traffic limits it."""
    if not chip.clock:
        return None, 0.0, 0.0
    products = others = by_memory = 0.0
    for computation, instruction, times in program.runs(trips):
        cycles = instruction.cycles
        if not cycles:
            continue
        if program.has_matrix_product(instruction):
            products += times * cycles
        else:
            traffic = program.memory_bytes(computation, instruction) / (SUSTAINED * chip.bandwidth) * chip.clock
            others += times * cycles
            by_memory += times * max(min(cycles, traffic), LEAST * cycles)
    return products, others, by_memory


def _uncounted(program: Program, trips: float) -> tuple[dict[str, float], dict[str, float]]:
    """Runs of kernels by their name, and of the other operations without cycles by their kind."""
    kernels: dict[str, float] = collections.defaultdict(float)
    silent: dict[str, float] = collections.defaultdict(float)
    for _, instruction, times in program.runs(trips):
        if name := kernel_name(instruction.text):
            kernels[name] += times
        elif instruction.cycles is None and instruction.opcode in _SILENT:
            silent[instruction.opcode] += times
    return dict(kernels), dict(silent)


def kernel_name(text: str) -> str:
    """The name of the Pallas kernel that an instruction runs; empty for another one."""
    match = re.search(r"(\w+)\)*/pallas_call", text) if "tpu_custom_call" in text else None
    return match[1] if match else ""
