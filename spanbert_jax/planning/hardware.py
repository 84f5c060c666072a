"""Accelerators that runs can be planned for, and topologies such as "4*v5e:16x16"."""
import dataclasses
import functools
import itertools
import math
import re

from spanbert_jax.common.errors import UserError, suggestion
from spanbert_jax.common.formatting import format_plural
from spanbert_jax.training.host_memory import free_host_memory


@dataclasses.dataclass(frozen=True)
class Chip:
    """Specification of an accelerator. JAX sees each chip as one device."""
    platform: str  # JAX's name of the platform
    flops: float  # peak bfloat16 operations per second
    memory: float  # bytes that a program may use: the compiler's own limit; on a GPU the share that JAX preallocates
    bandwidth: float  # of the memory, in bytes per second
    clock: float  # in Hz, at the peak; converts the compiler's cycles to seconds. 0 where the compiler counts none
    # Bytes per second that a ring of chips in one slice, or of GPUs in one host, moves from each chip to the next.
    # Data sheets do not state this figure: it is an assumption, on the low side.
    link: float
    network: float  # the same figure between slices or hosts, per chip
    dimensions: int  # of a slice's torus
    max_chips: int  # chips in the largest slice
    chips_per_host: int  # chips attached to one host


GPU_MEMORY = {"a100": 85_100_068_864, "h100": 84_979_810_304, "h200": 151_397_597_184, "b200": 191_514_411_008}  # bytes
# Peaks and bandwidths: data sheets of Google and NVIDIA (A100 SXM 80 GB, H100 SXM, H200 SXM, HGX B200; without
# sparsity). Memory of GPUs: as CUDA reports it. Clocks: those at which the matrix units reach the peaks. Links of GPUs:
# 82% of NVLink's data sheet in one direction. Network: 100 Gbit/s per TPU host; per GPU of NVIDIA's DGX systems
# 200 Gbit/s with A100, 400 Gbit/s with the others.
CHIPS: dict[str, Chip] = {
    "v4": Chip("tpu", 275e12, 30.75 * 2**30, 1228e9, 1.05e9, 200e9, 3.1e9, 3, 4096, 4),
    "v5e": Chip("tpu", 197e12, 15.75 * 2**30, 819e9, 1.5e9, 100e9, 3.1e9, 2, 256, 4),
    "v5p": Chip("tpu", 459e12, 95.74 * 2**30, 2765e9, 1.75e9, 200e9, 3.1e9, 3, 8960, 4),
    "v6e": Chip("tpu", 918e12, 31.25 * 2**30, 1640e9, 1.75e9, 200e9, 3.1e9, 2, 256, 4),
    "a100": Chip("gpu", 312e12, 0.92 * GPU_MEMORY["a100"], 2039e9, 0.0, 246e9, 25e9, 1, 16384, 8),
    "h100": Chip("gpu", 989e12, 0.92 * GPU_MEMORY["h100"], 3350e9, 0.0, 370e9, 50e9, 1, 16384, 8),
    "h200": Chip("gpu", 989e12, 0.92 * GPU_MEMORY["h200"], 4800e9, 0.0, 370e9, 50e9, 1, 16384, 8),
    "b200": Chip("gpu", 2250e12, 0.92 * GPU_MEMORY["b200"], 8000e9, 0.0, 740e9, 50e9, 1, 16384, 8),
    "cpu": Chip("cpu", 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1, 256, 256),  # that of this machine
}
_SLICES_2D = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
# Besides these, every side of a three-dimensional slice is a multiple of 4.
_SMALL_SLICES_3D = ((1, 1, 1), (2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4))
_EXAMPLES = "v5e:16x16, 4*v5e:16x16 (four slices), v5p:8x8x16, v6e:8x8, v4:4x4x4, h100:128 or cpu:1"


@dataclasses.dataclass(frozen=True)
class Topology:
    """Chips that run one program together."""
    kind: str  # a key of `CHIPS`
    shape: tuple[int, ...]  # of one slice; (N,) for GPUs and CPUs, which have no slices
    slices: int = 1  # number of slices, connected by the data center's network

    @property
    def chip(self) -> Chip:
        """Specification of one chip."""
        return CHIPS[self.kind]

    @property
    def slice_size(self) -> int:
        """Chips connected by fast links: those of a slice, or the GPUs of a host."""
        size = math.prod(self.shape)
        return min(size, self.chip.chips_per_host) if self.chip.platform == "gpu" else size

    @property
    def chips(self) -> int:
        """Chips of all slices together."""
        return self.slices * math.prod(self.shape)

    @functools.cached_property
    def memory(self) -> float:
        """Bytes that a program may use on each chip; CPU devices share what is free on this machine now."""
        return self.chip.memory or free_host_memory() / self.chips

    def __str__(self) -> str:
        return f"{f'{self.slices}*' if self.slices > 1 else ''}{self.kind}:{_shape_text(self.shape)}"


def parse_topology(text: str) -> Topology:
    """The topology of a text such as "4*v5e:16x16", "h100:128" or "cpu:8"; "cpu" alone, or the name of a GPU, is one.

    Raises UserError if there is no such topology.
    """
    name = text.strip().lower()
    name += ":1" * (name in CHIPS and CHIPS[name].dimensions == 1)
    match = re.fullmatch(r"(?:([0-9]+)\*)?([a-z0-9]+):([0-9]+(?:x[0-9]+)*)", name)
    if not match:
        raise UserError(f"topology {text!r}: write it as {_EXAMPLES}")
    topology = Topology(match[2], tuple(int(side) for side in match[3].split("x")), int(match[1] or 1))
    if topology.kind not in CHIPS:
        raise UserError(f"topology {text!r}: unknown chip {topology.kind!r}; {suggestion(topology.kind, CHIPS)}"
                        f"allowed: {', '.join(CHIPS)}")
    if problem := _problem(topology):
        raise UserError(f"topology {text!r}: {problem}")
    return topology


def _problem(topology: Topology) -> str:
    """Why no topology has this number of chips, slices or dimensions, or no slice this shape; "" if one has."""
    kind, chip, shape, size = topology.kind, topology.chip, topology.shape, math.prod(topology.shape)
    if not topology.chips:
        return f"it has no chips; write it as {_EXAMPLES}"
    if topology.slices > 1 and chip.platform != "tpu":
        return f"only TPUs have slices; write {kind}:{topology.chips}"
    if len(shape) != chip.dimensions:
        dimensions, nearest = format_plural(chip.dimensions, "dimension"), nearest_topology(kind, topology.chips)
        return f"{kind} slices have {dimensions}; write {format_plural(nearest.chips, 'chip')} as {nearest}"
    if size > chip.max_chips:
        several = f"; use several slices, such as {-(-size // chip.max_chips)}*{kind}:16x16"
        return (f"a slice of {kind} has at most {chip.max_chips:,} chips, not {size:,}"
                f"{several if chip.dimensions == 2 else ''}")
    if chip.dimensions == 2 and shape not in _SLICES_2D:
        return f"{kind} has no such slice; allowed: {', '.join(map(_shape_text, _SLICES_2D))}"
    if chip.dimensions == 3 and shape not in _SMALL_SLICES_3D and any(side % 4 for side in shape):
        return (f"{kind} has no such slice; allowed: {', '.join(map(_shape_text, _SMALL_SLICES_3D))} and those whose "
                "sides are multiples of 4, such as 4x4x8")
    if chip.platform == "gpu" and topology.chips > chip.chips_per_host and topology.chips % chip.chips_per_host:
        return f"each host has {chip.chips_per_host} GPUs; use a multiple of {chip.chips_per_host}"
    return ""


def _shape_text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def nearest_topology(kind: str, chips: int) -> Topology:
    """The largest topology with at most `chips` chips: the most cubic slice, or several of the largest slices."""
    chip = CHIPS[kind]
    if chip.dimensions == 1:
        chips = min(chips, chip.max_chips)
        hosts = chips // chip.chips_per_host
        return Topology(kind, (hosts * chip.chips_per_host if hosts else chips,))
    shapes: list[tuple[int, ...]] = list(_SLICES_2D)
    if chip.dimensions == 3:
        shapes = [*_SMALL_SLICES_3D, *itertools.combinations_with_replacement(range(4, 28, 4), 3)]
    fitting = [shape for shape in shapes if math.prod(shape) <= min(chips, chip.max_chips)]
    shape = max(fitting, key=lambda shape: (math.prod(shape), -max(shape)))
    return Topology(kind, shape, max(1, chips // chip.max_chips))
