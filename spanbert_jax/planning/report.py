"""Plans in words and tables."""
from __future__ import annotations

import collections
from collections.abc import Sequence

from spanbert_jax.common.console import table_text
from spanbert_jax.common.formatting import format_count, format_duration, format_gib, format_milliseconds, format_plural
from spanbert_jax.planning.compiler.hlo import Collective
from spanbert_jax.planning.compiler.steps import Compiled, TooLarge
from spanbert_jax.planning.estimate import collective_seconds
from spanbert_jax.planning.hardware import Topology
from spanbert_jax.planning.plans import Plan

METHOD = """ESTIMATED by the compiler's own cycle counts, never timed. Raw: as it notes them; memory-priced: what is
bound by memory takes as long as its traffic at 85% of the bandwidth. Kernels by the length of their schedule;
collectives as rings over assumed links ({link} GB/s in a slice{network}).
The host's part comes on top. How it is made: spanbert_jax/planning/estimate.py."""


def describe(plan: Plan) -> str:
    """All that is known of a run on one topology."""
    lines = [_headline(plan), "", fits(plan)]
    if isinstance(plan.found, TooLarge):
        return "\n".join(lines)
    lines += ["", table_text(("memory a chip", "GiB"), _memory(plan)), ""]
    if plan.estimate:
        lines += [table_text(("estimate", "raw", "memory-priced"), _times(plan)), ""]
    if collectives := _collectives(plan.found.collectives, plan.topology):
        columns = ("collectives a step", "how many", "MB a chip", "beside other work", "ms if alone")
        lines += [table_text(columns, collectives), ""]
    lines += [f"Compiled in {plan.found.seconds:,.0f} s; attention: {plan.found.attention}."]
    chip = plan.topology.chip
    if plan.estimate:
        network = f", {chip.network / 1e9:.3g} GB/s a chip between slices" if plan.topology.slices > 1 else ""
        lines += [METHOD.format(link=f"{chip.link / 1e9:.0f}", network=network)]
        if plan.found.silent:
            lines += [f"Not counted: {', '.join(f'{kind} ({runs:,.0f})' for kind, runs in plan.found.silent.items())}."]
    elif chip.platform == "gpu":
        lines += ["The compiler for GPUs counts no cycles, so there is no estimate of the time."]
    else:
        lines += ["The compiler for CPUs counts no cycles, so there is no estimate of the time; a few steps tell."]
    return "\n".join(lines)


def compare(plans: Sequence[Plan], settings: Sequence[str] = ()) -> str:
    """Several topologies, or settings if there are any, a line for each."""
    columns = ("settings" if settings else "topology", "chips", "rows a chip", "GiB a chip", "step ms",
               "MFU raw / priced", "with comm.", "tokens/s", "run", "chip-hours")
    rows = [_row(plan) for plan in plans]
    return table_text(columns, [(name, *row[1:]) for name, row in zip(settings, rows)] if settings else rows)


def fits(plan: Plan) -> str:
    """Whether a run fits in the memory of a chip, and by how much."""
    found, limit = plan.found, plan.topology.chip.memory
    if isinstance(found, TooLarge):
        over = f": {format_gib(found.needed)} GiB of {format_gib(found.available)}" if found.needed else ""
        return (f"DOES NOT FIT{over} a chip. Raise config.train.accumulation, set config.model.remat to 'names' or "
                "'full', or spread the state by config.mesh.zero1=True or config.mesh.fsdp; --search tries them")
    if not limit:
        return f"Takes {format_gib(used(found))} GiB a device."
    left = limit - used(found)
    if left < 0:
        return (f"DOES NOT FIT: {format_gib(used(found))} GiB of {format_gib(limit)} a chip. Raise config.train.accumulation or "
                "set config.model.remat; --search tries them")
    return f"Fits: {format_gib(used(found))} of {format_gib(limit)} GiB a chip, {format_gib(left)} GiB ({left / limit:.0%}) to spare."


def used(found: Compiled) -> int:
    """Bytes of a chip's memory that a step takes."""
    return (found.parameter_bytes + found.optimizer_bytes + found.batch_bytes + found.temporary_bytes
            + found.program_bytes)


def _headline(plan: Plan) -> str:
    topology, found = plan.topology, plan.found
    chips = format_plural(topology.chips, "device")
    if isinstance(found, TooLarge):
        return f"{topology}: {chips}, {plan.batch_size:,} rows of {plan.length} tokens a step"
    parts = f" in {found.accumulation} parts" if found.accumulation > 1 else ""
    return (f"{topology}: {chips}, {found.parameters:,} parameters, {plan.batch_size:,} rows of {plan.length} tokens a "
            f"step, {found.rows:,} a device at a time{parts}; {found.flops / 1e12:.3g} model TFLOP a device and step")


def _memory(plan: Plan) -> list[tuple[str, str]]:
    found = plan.found
    kept = min(found.activation_bytes, found.temporary_bytes)
    return [("parameters", format_gib(found.parameter_bytes)), ("optimiser", format_gib(found.optimizer_bytes)),
            ("batch", format_gib(found.batch_bytes)), ("activations kept for the backward pass", format_gib(kept)),
            ("other temporaries", format_gib(found.temporary_bytes - kept)), ("program", format_gib(found.program_bytes))]


def _times(plan: Plan) -> list[tuple[str, str, str]]:
    spent, both = plan.estimate, (True, False)
    tokens = plan.batch_size * plan.length
    return [
        ("matrix products, ms", *[f"{1e3 * spent.products:.1f}"] * 2),
        ("kernels, ms", *[f"{1e3 * spent.kernels:.1f}"] * 2),
        ("all else, ms", f"{1e3 * spent.others:.1f}", f"{1e3 * spent.others_by_memory:.1f}"),
        ("communication that nothing hides, ms", *[f"{1e3 * spent.exposed:.1f}"] * 2),
        ("step, ms", *(f"{1e3 * plan.seconds(raw):.1f}" for raw in both)),
        ("MFU of the computation", *(f"{plan.utilization(raw):.1%}" for raw in both)),
        ("MFU with communication", *(f"{plan.utilization(raw, communication=True):.1%}" for raw in both)),
        ("tokens/s", *(f"{tokens / plan.seconds(raw):,.0f}" for raw in both)),
        (f"run of {plan.steps:,} steps, {format_count(plan.tokens)} tokens",
         *(format_duration(plan.steps * plan.seconds(raw)) for raw in both)),
        ("chip-hours", *(f"{plan.steps * plan.seconds(raw) / 3600 * plan.topology.chips:,.0f}" for raw in both))]


def _collectives(collectives: Sequence[Collective], topology: Topology) -> list[tuple[str, ...]]:
    """A line for each kind, group and way of overlapping."""
    groups: dict[tuple[str, int, bool, bool], list[Collective]] = collections.defaultdict(list)
    for one in collectives:
        groups[one.kind, one.group, one.crosses_slices, one.overlapped].append(one)
    rows = []
    for (kind, group, crosses, overlapped), members in groups.items():
        volume = sum(one.runs * one.bytes for one in members)
        if volume < 1e4:  # losses, norms and votes
            continue
        between = ", between slices" if crosses and topology.slices > 1 else ", between hosts" if crosses else ""
        time = sum(one.runs * collective_seconds(one, topology) for one in members)
        rows.append((f"{kind} over {group}{between}", f"{sum(one.runs for one in members):,.0f}",
                     f"{volume / 1e6:,.1f}", "yes" if overlapped else "no",
                     f"{1e3 * time:.1f}" if topology.chip.link else "-"))
    return rows


def _row(plan: Plan) -> tuple[str, ...]:
    found, topology = plan.found, plan.topology
    if isinstance(found, TooLarge):
        needed = f"{format_gib(found.needed)} of {format_gib(found.available)}" if found.needed else "too much"
        return (str(topology), f"{topology.chips:,}", "-", f"{needed}: does not fit", *["-"] * 6)
    limit = topology.chip.memory
    memory = format_gib(used(found)) + (f" of {format_gib(limit)}" if limit else "")
    if limit and used(found) > limit:
        memory += ": does not fit"
    row = (str(topology), f"{topology.chips:,}", f"{found.rows:,}", memory)
    if not plan.estimate:
        return (*row, *["-"] * 6)
    slow, fast = plan.seconds(raw=True), plan.seconds(raw=False)
    return (*row, f"{format_milliseconds(fast)}-{format_milliseconds(slow)}",
            f"{plan.utilization(True):.1%} / {plan.utilization(False):.1%}",
            f"{plan.utilization(True, True):.1%} / {plan.utilization(False, True):.1%}",
            f"{format_count(plan.batch_size * plan.length / slow)}-{format_count(plan.batch_size * plan.length / fast)}",
            f"{format_duration(plan.steps * fast)} - {format_duration(plan.steps * slow)}",
            f"{plan.steps * fast * topology.chips / 3600:,.0f}-{plan.steps * slow * topology.chips / 3600:,.0f}")
