"""Compiles the train step of a run for a topology, and reads memory, cycles and collectives from the program."""
import collections
import dataclasses
import math
import re
import time
from typing import Any

import jax

from spanbert_jax.common.errors import UserError
from spanbert_jax.planning.compiler.activations import activation_bytes
from spanbert_jax.planning.compiler.corpus_shape import CorpusShape, abstract_inputs, placeholder_corpus
from spanbert_jax.planning.compiler.hlo import Collective, Program
from spanbert_jax.planning.hardware import Chip, Topology
from spanbert_jax.pretraining.config import PretrainingConfig
from spanbert_jax.pretraining.workload import build, corpus_masker
from spanbert_jax.training.experiment import Experiment, check_devices, parameter_count
from spanbert_jax.training.mesh import mesh_axes
from spanbert_jax.training.step import make_train_step

# The masking loop makes one span per iteration, of about three tokens; its end depends on the text.
_TOKENS_PER_SPAN = 3
# Operations that take time although the compiler states no cycles for them.
_UNCOUNTED = ("rng-bit-generator", "sort", "scatter", "gather")
# Share of the memory's bandwidth that operations reach, and the least share of the compiler's cycles that they take.
SUSTAINED_BANDWIDTH, MIN_CYCLES = 0.85, 0.25


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """A compiled train step. Figures are for one device unless stated otherwise."""
    rows: int  # of one microbatch
    length: int  # tokens in a row, S
    parameters: int  # of the whole model
    attention: str  # name of the attention backend
    heads: int  # number of attention heads
    accumulation: int  # microbatches in a step
    flops: float  # model FLOPs of a step
    seconds: float  # time that the compilation took
    parameter_bytes: int  # parameters, as sharded
    optimizer_bytes: int  # optimizer state, as sharded
    batch_bytes: int  # the step's batch, as sharded
    activation_bytes: int  # arrays that the forward pass keeps for the backward pass
    temporary_bytes: int  # everything besides arguments and program, activations included
    program_bytes: int  # the code
    product_cycles: float | None  # of matrix products and what is fused with them; None if the compiler counts none
    other_cycles: float  # of all other operations besides kernels
    other_roofline_cycles: float  # the same, with memory-bound operations limited by their memory traffic
    kernels: dict[str, float]  # runs of each Pallas kernel, in layers with a window by themselves
    uncounted: dict[str, float]  # runs of operations for which the compiler states no cycles, by opcode
    collectives: tuple[Collective, ...]

    @property
    def total_bytes(self) -> int:
        """Memory that the step takes."""
        return (self.parameter_bytes + self.optimizer_bytes + self.batch_bytes + self.temporary_bytes
                + self.program_bytes)


@dataclasses.dataclass(frozen=True)
class OutOfMemory:
    """A train step that the compiler refused because it does not fit in a device's memory."""
    needed: float  # bytes; 0 if the compiler does not state them
    available: float  # bytes


def compile_step(config: PretrainingConfig, corpus: CorpusShape, topology: Topology,
                 devices: list[jax.Device]) -> CompiledStep | OutOfMemory:
    """Compiles the train step of a run for devices that may be absent.

    Raises:
      UserError: the devices do not suit the run, or the compiler fails for another reason than the devices' memory.
    """
    check_devices(config, devices)
    placeholder = placeholder_corpus(corpus, config)
    experiment = build(config, placeholder, devices)
    step: Any = make_train_step(config, experiment.workload.objective, experiment.optimizer, experiment.schedule,
                                experiment.abstract_state, experiment.mesh)
    batch, stop_flags = abstract_inputs(experiment)
    began = time.monotonic()
    with jax.set_mesh(experiment.mesh):
        lowered = step.lower(experiment.abstract_state, batch, stop_flags)
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            return out_of_memory(str(error), _bytes_per_device((experiment.abstract_state, batch)), topology.chip)
    spans = corpus_masker(config, placeholder).max_masked / _TOKENS_PER_SPAN
    return _read_program(experiment, batch, compiled, topology, spans, time.monotonic() - began)


def out_of_memory(message: str, arguments: int, chip: Chip) -> OutOfMemory:
    """Parses the compiler's error message; `arguments` are the bytes of the step's arguments.

    Raises:
      UserError: the error is not about the devices' memory.
    """
    if match := re.search(r"HLO temporaries \(([0-9.]+[KMGT]?)\) exceeds available HBM \(([0-9.]+[KMGT]?)\)", message):
        return OutOfMemory(_parse_bytes(match[1]) + arguments, _parse_bytes(match[2]))
    if match := re.search(r"Used ([0-9.]+[KMGT]?) of ([0-9.]+[KMGT]?) hbm", message):
        return OutOfMemory(_parse_bytes(match[1]), _parse_bytes(match[2]))
    words = " ".join(message.split())[:300]
    if re.search(r"\bspace[= ]vmem\b", message):  # of one kernel, which does not depend on the batch
        raise UserError(f"a kernel needs more than the vector memory (VMEM) of the chip: {words}; "
                        "config.compute.attention='plain' does without kernels")
    if "RESOURCE_EXHAUSTED" in message:
        return OutOfMemory(0.0, chip.memory)
    raise UserError(f"the compiler failed: {words}")


def _parse_bytes(text: str) -> float:
    """Bytes of a size such as "15.75G"."""
    units = {"K": 2.0**10, "M": 2.0**20, "G": 2.0**30, "T": 2.0**40}
    return float(text.rstrip("KMGT")) * units.get(text[-1], 1.0)


def _read_program(experiment: Experiment, batch: Any, compiled: Any, topology: Topology, spans: float,
                  seconds: float) -> CompiledStep:
    """Memory, cycles and collectives of a program that JAX compiled; `spans` are those masked in a row."""
    config, network, workload = experiment.config, experiment.model.config, experiment.workload
    memory, program = compiled.memory_analysis(), Program(compiled.as_text())
    abstract, accumulation = experiment.abstract_state, config.train.accumulation
    shards = {name: math.prod(experiment.mesh.shape[axis] for axis in mesh_axes(config.mesh.rules, name))
            for name in ("batch", "heads")}
    return CompiledStep(
        rows=config.train.batch_size // accumulation // shards["batch"], length=workload.length,
        parameters=parameter_count(abstract.params, network), attention=experiment.model.compute.attention,
        heads=network.num_heads // shards["heads"], accumulation=accumulation,
        flops=workload.flops / topology.chips, seconds=seconds,
        parameter_bytes=_bytes_per_device(abstract.params), optimizer_bytes=_bytes_per_device(abstract.opt_state),
        batch_bytes=_bytes_per_device(batch), activation_bytes=activation_bytes(program),
        temporary_bytes=memory.temp_size_in_bytes, program_bytes=memory.generated_code_size_in_bytes,
        **_count_runs(program, topology.chip, spans),
        collectives=tuple(program.collectives(spans, topology.slice_size, topology.slices)))


def _bytes_per_device(tree: Any) -> int:
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _count_runs(program: Program, chip: Chip, spans: float) -> dict[str, Any]:
    """The fields of `CompiledStep` with cycles and with runs of operations that have none."""
    products = others = roofline = 0.0
    kernels: dict[str, float] = collections.defaultdict(float)
    uncounted: dict[str, float] = collections.defaultdict(float)
    for computation, instruction, runs in program.runs(spans):
        cycles = instruction.cycles
        if name := kernel_name(instruction.text):
            kernels[name] += runs
        elif cycles is None and instruction.opcode in _UNCOUNTED:
            uncounted[instruction.opcode] += runs
        if not cycles or not chip.clock:
            continue
        if program.has_matrix_product(instruction):
            products += runs * cycles
        else:
            seconds = program.memory_bytes(computation, instruction) / (SUSTAINED_BANDWIDTH * chip.bandwidth)
            others += runs * cycles
            roofline += runs * max(min(cycles, seconds * chip.clock), MIN_CYCLES * cycles)
    return {"product_cycles": products if chip.clock else None, "other_cycles": others,
            "other_roofline_cycles": roofline, "kernels": dict(kernels), "uncounted": dict(uncounted)}


def kernel_name(text: str) -> str:
    """Name of the Pallas kernel that an instruction runs, with the window of its layer; "" for other instructions."""
    match = re.search(r"(\w+)\)*/pallas_call", text) if "tpu_custom_call" in text else None
    window = re.search(r"\bwindow_(\d+)\b", text)
    return name_in_layer(match[1], int(window[1]) if window else 0) if match else ""


def name_in_layer(name: str, window: int) -> str:
    """Name of a kernel in layers with a window, 0 for none; see `CompiledStep.kernels`."""
    return f"{name} (window {window})" if window else name
