"""Estimates the time of a train step from the compiler's cycle counts. Nothing here has been timed on a TPU.

The compiler states cycles for every fused operation. For matrix products they are credible: near the peak for large
ones, never above it, and linear in the batch size. For memory-bound operations they are two to four times too high,
judged by the bytes that these move. So there are two estimates, and the true time should lie between them:

  raw: all cycles as the compiler states them.
  roofline: matrix products as stated; other operations take no longer than their memory traffic at 85% of the
    bandwidth, but at least a quarter of the stated cycles.

Both include the attention kernels, for which the program states no cycles: the length of their static schedule times
the steps of their grid. Collectives are rings over links of an assumed speed; those that overlap with other work cost
nothing. Sorting, gathering and scattering, a thousandth of the work, and the host's work are not counted.
"""
import dataclasses

from spanbert_jax.planning.compiler.hlo import Collective
from spanbert_jax.planning.compiler.steps import CompiledStep
from spanbert_jax.planning.hardware import Topology


@dataclasses.dataclass(frozen=True)
class StepTime:
    """Estimated seconds of a step on one chip."""
    peak: float  # the model's FLOPs at the chip's peak
    products: float  # matrix products, and operations fused with them
    others: float  # other operations besides kernels, by raw cycles
    others_roofline: float  # the same, limited by memory traffic
    kernels: float  # attention kernels
    exposed: float  # collectives that nothing overlaps

    def computation(self, raw: bool) -> float:
        """Seconds without communication, by the raw or the roofline estimate."""
        return self.products + (self.others if raw else self.others_roofline) + self.kernels

    def total(self, raw: bool) -> float:
        """Seconds with communication that nothing overlaps."""
        return self.computation(raw) + self.exposed

    def utilization(self, raw: bool, communication: bool = False) -> float:
        """MFU: the share of the chip's peak that the model's FLOPs reach, with or without communication."""
        return self.peak / (self.total(raw) if communication else self.computation(raw))


def estimate_step_time(step: CompiledStep, topology: Topology, kernel_cycles: dict[str, float]) -> StepTime | None:
    """The time of a step, with the result of `kernels.kernel_cycles`; None if the compiler counts no cycles."""
    chip = topology.chip
    if step.product_cycles is None:
        return None
    kernels = sum(runs * step.rows * step.heads * kernel_cycles.get(name, 0.0) for name, runs in step.kernels.items())
    exposed = sum(collective.runs * collective_seconds(collective, topology)
                  for collective in step.collectives if not collective.overlapped)
    return StepTime(step.flops / chip.flops, step.product_cycles / chip.clock, step.other_cycles / chip.clock,
                    step.other_roofline_cycles / chip.clock, kernels / chip.clock, exposed)


def collective_seconds(collective: Collective, topology: Topology) -> float:
    """The time of a collective as a ring: each of n members sends (n - 1) / n of the bytes, twice for an all-reduce."""
    chip = topology.chip
    if collective.group < 2 or not chip.link:
        return 0.0
    speed = chip.network if collective.crosses_slices else chip.link
    share = 1.0 if collective.kind == "collective-permute" else (collective.group - 1) / collective.group
    return (2 if collective.kind == "all-reduce" else 1) * share * collective.bytes / speed
