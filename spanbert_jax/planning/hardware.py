"""The accelerators that can be planned for, and how a number of them is written."""
from __future__ import annotations

import dataclasses
import difflib
import itertools
import math
import re

from spanbert_jax.common.errors import UserError


@dataclasses.dataclass(frozen=True)
class Chip:
    """An accelerator as its maker describes it. JAX sees each as one device.

    Attributes:
      platform: as JAX names it.
      flops: bfloat16 operations a second at its peak.
      memory: bytes that a program may use: the compiler's own limit; on a GPU what JAX is told to take.
      bandwidth: of the memory, bytes a second.
      clock: Hz, at which the peak is reached; what the compiler's cycles are divided by. 0 where it counts none.
      cores: that share the grid of a kernel.
      link: bytes a second that a ring of chips in one slice, or of GPUs in one host, moves from each to the next. Not
        in any data sheet in this form: an assumption, on the low side.
      network: the same between slices or hosts, for each chip.
      dimensions: of a slice's torus.
      most: chips in a slice.
      host: chips in a host.
    """
    platform: str
    flops: float
    memory: float
    bandwidth: float
    clock: float
    cores: int
    link: float
    network: float
    dimensions: int
    most: int
    host: int


# Peaks and bandwidth: Google's and NVIDIA's data sheets. The clocks are those at which the matrix units reach
# the peaks. A network of 100 Gbit/s for each host of TPUs, and of 400 Gbit/s for each H100.
CHIPS: dict[str, Chip] = {
    "v4": Chip("tpu", 275e12, 30.75 * 2**30, 1228e9, 1.05e9, 2, 200e9, 3.1e9, 3, 4096, 4),
    "v5e": Chip("tpu", 197e12, 15.75 * 2**30, 819e9, 1.5e9, 1, 100e9, 3.1e9, 2, 256, 4),
    "v5p": Chip("tpu", 459e12, 95.74 * 2**30, 2765e9, 1.75e9, 2, 200e9, 3.1e9, 3, 8960, 4),
    "v6e": Chip("tpu", 918e12, 31.25 * 2**30, 1640e9, 1.75e9, 1, 200e9, 3.1e9, 2, 256, 4),
    "h100": Chip("gpu", 989e12, 0.92 * 84_979_810_304, 3350e9, 0.0, 1, 370e9, 50e9, 1, 16384, 8),
    "cpu": Chip("cpu", 0.0, 0.0, 0.0, 0.0, 1, 0.0, 0.0, 1, 256, 256),
}
_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_SMALL = ((1, 1, 1), (2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4))
_EXAMPLES = "v5e:16x16, 4*v5e:16x16 (four slices), v5p:8x8x16, v6e:8x8, v4:4x4x4, h100:128 or cpu:8"


@dataclasses.dataclass(frozen=True)
class Topology:
    """Chips that run together.

    Attributes:
      kind: a key of `CHIPS`.
      shape: of a slice; (N,) where it has none.
      slices: how many such slices, joined by the data center's network.
    """
    kind: str
    shape: tuple[int, ...]
    slices: int = 1

    @property
    def chip(self) -> Chip:
        """What is known of such a chip."""
        return CHIPS[self.kind]

    @property
    def slice_size(self) -> int:
        """Chips that the fast links join: those of a slice, or the GPUs of a host."""
        size = math.prod(self.shape)
        return min(size, self.chip.host) if self.chip.platform == "gpu" else size

    @property
    def chips(self) -> int:
        """Of all slices together."""
        return self.slices * math.prod(self.shape)

    def __str__(self) -> str:
        return f"{f'{self.slices}*' if self.slices > 1 else ''}{self.kind}:{'x'.join(map(str, self.shape))}"


def parse_topology(text: str) -> Topology:
    """Reads "v5e:16x16", "4*v5e:16x16", "h100:128" or "cpu:8".

    Raises:
      UserError: there is no such topology.
    """
    match = re.fullmatch(r"(?:([0-9]+)\*)?([a-z0-9]+):([0-9]+(?:x[0-9]+)*)", text.strip())
    if not match:
        raise UserError(f"topology {text!r}: write it as {_EXAMPLES}")
    slices, kind, shape = int(match[1] or 1), match[2], tuple(int(size) for size in match[3].split("x"))
    if kind not in CHIPS:
        near = difflib.get_close_matches(kind, CHIPS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(f"topology {text!r}: no chip {kind!r} is known; {hint}there are {', '.join(CHIPS)}")
    chip, size = CHIPS[kind], math.prod(shape)
    if not size or not slices:
        raise UserError(f"topology {text!r}: no chips in it; write it as {_EXAMPLES}")
    if slices > 1 and chip.platform != "tpu":
        raise UserError(f"topology {text!r}: only TPUs come in slices; write {kind}:{slices * size}")
    if len(shape) != chip.dimensions:
        example = {1: f"{kind}:{size}", 2: f"{kind}:4x4", 3: f"{kind}:2x2x1 or {kind}:4x4x4"}[chip.dimensions]
        raise UserError(f"topology {text!r}: {kind} has slices of {chip.dimensions} dimension"
                        f"{'s' * (chip.dimensions > 1)}; write it as {example}")
    if size > chip.most:
        part = " (16x16)" if chip.dimensions == 2 else ""
        hint = f"; take several slices, such as {-(-size // chip.most)}*{kind}:16x16" if chip.dimensions == 2 else ""
        raise UserError(f"topology {text!r}: at most {chip.most:,} chips of {kind} are in one piece{part}, and these "
                        f"are {size:,}{hint}")
    if chip.dimensions == 2 and match[3] not in _FLAT:
        raise UserError(f"topology {text!r}: there is no such slice of {kind}; there are {', '.join(_FLAT)}")
    if chip.dimensions == 3 and shape not in _SMALL and any(side % 4 for side in shape):
        raise UserError(f"topology {text!r}: there is no such slice of {kind}; there are "
                        f"{', '.join('x'.join(map(str, small)) for small in _SMALL)} and those of sides that are "
                        "multiples of 4, such as 4x4x8")
    if chip.platform == "gpu" and size > chip.host and size % chip.host:
        raise UserError(f"topology {text!r}: hosts hold {chip.host} GPUs each; take a multiple of {chip.host}")
    return Topology(kind, shape, slices)


def nearest_topology(kind: str, chips: int) -> Topology:
    """The largest slice with at most so many chips, as cubic as it goes; several beyond the largest that there is."""
    chip = CHIPS[kind]
    if chip.dimensions == 1:
        return Topology(kind, (chips if chips <= chip.host else chips // chip.host * chip.host,))
    if chip.dimensions == 2:
        shapes = [tuple(map(int, shape.split("x"))) for shape in _FLAT]
    else:
        shapes = [*_SMALL, *itertools.combinations_with_replacement(range(4, 28, 4), 3)]
    fitting = [shape for shape in shapes if math.prod(shape) <= min(chips, chip.most)]
    shape = max(fitting, key=lambda shape: (math.prod(shape), -max(shape)))
    return Topology(kind, shape, max(1, chips // chip.most))
