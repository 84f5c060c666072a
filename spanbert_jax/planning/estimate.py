"""From what the compiler counts to time: an estimate, and how it is made. Nothing here has been timed on a TPU.

The compiler notes cycles for every fused operation. For matrix products they are credible: near the peak for large
ones, never above it, linear in the batch. For operations that are bound by memory they are two to four times too many,
judged by the bytes that they move. So there are two figures, between which the truth should lie:

  raw: all cycles as the compiler notes them.
  memory-priced: products as noted; the rest no longer than its memory traffic takes at 85% of the bandwidth, but never
    below a quarter of what is noted.

To both come the kernels, for which the compiler notes nothing in the program: the length of their static schedule times
the steps of their grid. Collectives are priced as rings over an assumed speed of the links; those that run beside other
work count nothing. Sorting, gathering and scattering, a thousandth of the work here, count nothing, nor does the
host's part.
"""
from __future__ import annotations

import dataclasses

from spanbert_jax.planning.compiler.hlo import Collective
from spanbert_jax.planning.compiler.steps import Compiled
from spanbert_jax.planning.hardware import Topology


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Seconds of a step on one chip.

    Attributes:
      products, others, others_by_memory, kernels: as above.
      exposed: collectives that nothing runs beside.
      hidden: those that run beside other work.
    """
    products: float
    others: float
    others_by_memory: float
    kernels: float
    exposed: float
    hidden: float

    @property
    def raw(self) -> float:
        """Seconds of a step, without communication, by the cycles as they are noted."""
        return self.products + self.others + self.kernels

    @property
    def memory_priced(self) -> float:
        """The same, but with what is bound by memory priced by its traffic."""
        return self.products + self.others_by_memory + self.kernels


def estimate(compiled: Compiled, topology: Topology, kernel_cycles: dict[str, float]) -> Estimate | None:
    """The time of a step; None where the compiler counts no cycles.

    Args:
      kernel_cycles: of one run of each kernel over one row and head, as `kernels.kernel_cycles` gives them.
    """
    chip = topology.chip
    if compiled.product_cycles is None:
        return None
    kernels = sum(runs * compiled.rows * compiled.heads * kernel_cycles.get(name, 0.0)
                  for name, runs in compiled.kernels.items())
    times = {overlapped: sum(collective.runs * collective_seconds(collective, topology)
                             for collective in compiled.collectives if collective.overlapped == overlapped)
             for overlapped in (False, True)}
    return Estimate(
        compiled.product_cycles / chip.clock, compiled.other_cycles / chip.clock,
        compiled.other_cycles_by_memory / chip.clock, kernels / chip.clock, times[False], times[True])


def collective_seconds(collective: Collective, topology: Topology) -> float:
    """The time of a collective as a ring: each of n members sends (n - 1) / n of the bytes, twice for an all-reduce."""
    chip = topology.chip
    if collective.group < 2 or not chip.link:
        return 0.0
    speed = chip.network if collective.crosses_slices else chip.link
    share = 1.0 if collective.kind == "collective-permute" else (collective.group - 1) / collective.group
    return (2 if collective.kind == "all-reduce" else 1) * share * collective.bytes / speed
