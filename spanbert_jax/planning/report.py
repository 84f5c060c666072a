"""Plans as text and tables."""
import collections
from collections.abc import Mapping, Sequence

from spanbert_jax.common.console import table_text
from spanbert_jax.common.formatting import (
    format_count,
    format_duration,
    format_gib,
    format_milliseconds,
    format_plural,
    format_quantity,
)
from spanbert_jax.planning.compiler.hlo import Collective
from spanbert_jax.planning.compiler.steps import CompiledStep, OutOfMemory
from spanbert_jax.planning.estimate import StepTime, collective_seconds
from spanbert_jax.planning.hardware import Topology
from spanbert_jax.planning.machine import measure_flops
from spanbert_jax.planning.plans import Plan

_METHOD = """ESTIMATED from the compiler's own cycle counts, never timed. Raw: the counts as they are. Roofline:
memory-bound operations take as long as their memory traffic at 85% of the bandwidth. Kernels by the length of their
schedule; collectives as rings over assumed links ({link:.0f} GB/s in a slice{network}).
The host's work is not counted. Details: spanbert_jax/planning/estimate.py."""
_SMALL_COLLECTIVE = 1e4  # bytes; losses, norms and stop flags are smaller


def describe(plan: Plan, price: float = 0.0) -> str:
    """Everything that is known about a run on one topology. `price`: of a chip-hour, 0 if it is not known."""
    step, chip = plan.step, plan.topology.chip
    lines = [_headline(plan), "", memory_verdict(plan)]
    if isinstance(step, OutOfMemory):
        return "\n".join(lines)
    lines += ["", table_text(("memory per chip", "GiB"), _memory_rows(step)), ""]
    if plan.time:
        lines += [table_text(("estimate", "raw", "roofline"), _time_rows(plan, plan.time, price)), ""]
    if collectives := _collective_rows(step.collectives, plan.topology):
        columns = ("collectives per step", "count", "MB per chip", "overlapped", "ms if not overlapped")
        lines += [table_text(columns, collectives), ""]
    lines += [f"Compiled in {step.seconds:,.0f} s; attention backend: {step.attention}."]
    if plan.time:
        network = f", {chip.network / 1e9:.3g} GB/s per chip between slices" if plan.topology.slices > 1 else ""
        lines += [_METHOD.format(link=chip.link / 1e9, network=network)]
        if step.uncounted:
            uncounted = ", ".join(f"{opcode} ({runs:,.0f})" for opcode, runs in step.uncounted.items())
            lines += [f"Not counted: {uncounted}."]
    else:
        lines += [f"The {chip.platform.upper()} compiler counts no cycles, so there is no estimate of the time."]
        lines += [_least_time(plan, step, price)]
    return "\n".join(lines)


def compare(plans: Sequence[Plan], settings: Sequence[str] = (),
            prices: Mapping[str, float] | None = None) -> str:
    """A table with a row for each plan, which is named by its settings if they are given, else by its topology.

    `prices`: of a chip-hour by kind of chip, for a further column.
    """
    columns = ["settings" if settings else "topology", "chips", "rows per chip", "GiB per chip", "step ms",
               "MFU raw / roofline", "with communication", "tokens/s", "run", "chip-hours"]
    columns += ["cost"] if prices else []
    names = settings or [str(plan.topology) for plan in plans]
    return table_text(columns, [(name, *_comparison_cells(plan), *_cost_cells(plan, prices or {}))
                                for name, plan in zip(names, plans)])


def memory_verdict(plan: Plan) -> str:
    """Whether a run fits in the memory of a chip, by how much, and what to do if it does not."""
    step, limit = plan.step, plan.topology.memory
    needed, limit = (step.needed, step.available) if isinstance(step, OutOfMemory) else (step.total_bytes, limit)
    if not plan.fits:
        amount = f": {format_gib(needed)} of {format_gib(limit)} GiB" if needed else ""
        return (f"DOES NOT FIT{amount} per chip. Raise config.train.accumulation, set config.compute.remat to 'names' "
                "or 'full', or shard the state with config.mesh.zero1=True or config.mesh.fsdp; --search tries them")
    return (f"Fits: {format_gib(needed)} of {format_gib(limit)} GiB per chip, {format_gib(limit - needed)} GiB "
            f"({1 - needed / limit:.0%}) to spare.")


def _headline(plan: Plan) -> str:
    topology, step = plan.topology, plan.step
    devices = format_plural(topology.chips, "device")
    rows = f"{format_plural(plan.batch_size, 'row')} of {plan.length} tokens"
    if isinstance(step, OutOfMemory):
        return f"{topology}: {devices}, {rows} per step"
    microbatches = f" in {step.accumulation} microbatches" if step.accumulation > 1 else ""
    return (f"{topology}: {devices}, {step.parameters:,} parameters, {rows} "
            f"per step, {step.rows:,} per device at a time{microbatches}; {step.flops / 1e12:.3g} model TFLOP per "
            "device and step")


def _memory_rows(step: CompiledStep) -> list[tuple[str, str]]:
    activations = min(step.activation_bytes, step.temporary_bytes)
    sizes = {"parameters": step.parameter_bytes, "optimizer state": step.optimizer_bytes, "batch": step.batch_bytes,
             "activations for the backward pass": activations, "other temporaries": step.temporary_bytes - activations,
             "program": step.program_bytes}
    return [(name, format_gib(size)) for name, size in sizes.items()]


def _time_rows(plan: Plan, time: StepTime, price: float) -> list[tuple[str, ...]]:
    """Names of the estimated figures, with their values by the raw and the roofline estimate."""
    names = ["matrix products, ms", "kernels, ms", "other operations, ms", "communication that nothing overlaps, ms",
             "step, ms", "MFU without communication", "MFU with communication", "tokens/s",
             f"run of {format_plural(plan.steps, 'step')}, {format_count(plan.steps * plan.tokens_per_step)} tokens",
             "chip-hours"]
    columns = []
    for raw in (True, False):
        step = time.total(raw)
        parts = time.products, time.kernels, time.others if raw else time.others_roofline, time.exposed, step
        columns.append([*(f"{1e3 * seconds:.1f}" for seconds in parts),
                        *(f"{time.utilization(raw, communication):.1%}" for communication in (False, True)),
                        f"{plan.tokens_per_step / step:,.0f}", format_duration(plan.steps * step),
                        f"{_chip_hours(plan, step):,.0f}", f"{price * _chip_hours(plan, step):,.0f}"])
    return list(zip([*names, f"cost at {price:g} per chip-hour"], *columns))[:None if price else -1]


def _chip_hours(plan: Plan, step_seconds: float) -> float:
    return plan.steps * step_seconds / 3600 * plan.topology.chips


def _least_time(plan: Plan, step: CompiledStep, price: float) -> str:
    """The time of the run at the peak of its devices, as a lower bound where the compiler counts no cycles."""
    chip, chips = plan.topology.chip, plan.topology.chips
    speed = chip.flops or measure_flops() / chips
    source = "the peak of the data sheet" if chip.flops else "as a matrix product reaches now"
    seconds = step.flops / speed
    hours = _chip_hours(plan, seconds)
    cost = f", which cost {price * hours:,.3g}" if price else ""
    return (f"At {format_quantity(speed, 'FLOP/s')} per device, {source}, a step takes at least "
            f"{format_milliseconds(seconds)} ms and the run {format_duration(plan.steps * seconds)}: {hours:,.3g} "
            f"chip-hours{cost}.")


def _cost_cells(plan: Plan, prices: Mapping[str, float]) -> tuple[str, ...]:
    """The cell of the column "cost"; none without prices."""
    price = prices.get(plan.topology.kind)
    if price is None or not plan.time:
        return ("-",) * bool(prices)
    least, most = (price * _chip_hours(plan, plan.time.total(raw)) for raw in (False, True))
    return (f"{least:,.0f}-{most:,.0f}",)


def _collective_rows(collectives: Sequence[Collective], topology: Topology) -> list[tuple[str, ...]]:
    """A row for each kind, group and overlap."""
    groups: dict[tuple[str, int, bool, bool], list[Collective]] = collections.defaultdict(list)
    for collective in collectives:
        groups[collective.kind, collective.group, collective.crosses_slices, collective.overlapped].append(collective)
    rows: list[tuple[str, ...]] = []
    for (kind, group, crosses, overlapped), members in groups.items():
        volume = sum(member.runs * member.bytes for member in members)
        if volume < _SMALL_COLLECTIVE:
            continue
        between = f", between {'slices' if topology.slices > 1 else 'hosts'}" if crosses else ""
        seconds = sum(member.runs * collective_seconds(member, topology) for member in members)
        rows.append((f"{kind} over {group}{between}", f"{sum(member.runs for member in members):,.0f}",
                     f"{volume / 1e6:,.1f}", "yes" if overlapped else "no",
                     f"{1e3 * seconds:.1f}" if topology.chip.link else "-"))
    return rows


def _comparison_cells(plan: Plan) -> tuple[str, ...]:
    step, topology, time = plan.step, plan.topology, plan.time
    if isinstance(step, OutOfMemory):
        needed = f"{format_gib(step.needed)} of {format_gib(step.available)}" if step.needed else "too much"
        return f"{topology.chips:,}", "-", f"{needed}: does not fit", *["-"] * 6
    memory = f"{format_gib(step.total_bytes)} of {format_gib(topology.memory)}{'' if plan.fits else ': does not fit'}"
    cells = f"{topology.chips:,}", f"{step.rows:,}", memory
    if not time:
        return *cells, *["-"] * 6
    raw, roofline = time.total(raw=True), time.total(raw=False)
    return (*cells, f"{format_milliseconds(roofline)}-{format_milliseconds(raw)}",
            f"{time.utilization(True):.1%} / {time.utilization(False):.1%}",
            f"{time.utilization(True, True):.1%} / {time.utilization(False, True):.1%}",
            f"{format_count(plan.tokens_per_step / raw)}-{format_count(plan.tokens_per_step / roofline)}",
            f"{format_duration(plan.steps * roofline)} - {format_duration(plan.steps * raw)}",
            f"{_chip_hours(plan, roofline):,.0f}-{_chip_hours(plan, raw):,.0f}")
