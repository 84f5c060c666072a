"""Looking for the settings with which a run is fastest on a topology, among those that fit."""
from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import ml_collections

from spanbert_jax.common.errors import UserError
from spanbert_jax.planning.compiler.steps import TooLarge
from spanbert_jax.planning.hardware import Topology
from spanbert_jax.planning.plans import Plan, make_plan
from spanbert_jax.planning.report import used

# What is tried of `config.model.remat`, from the fastest to what needs least memory.
_REMAT = ("none", "names", "full")
# Ways over which a state that is too large for a chip is spread: few, or its parts become too small to be fast.
_FSDP = 16

Overrides = dict[str, str | int | bool]


def search(config: ml_collections.ConfigDict, topology: Topology, say: Callable[[str], None],
           ) -> list[tuple[Overrides, Plan]]:
    """Tries ways of computing the same batch, and returns those that fit, the fastest first.

    The batch, and so what is learned, stays as it is. For each way of laying out the state, and of recomputing, it
    takes the fewest parts that fit; recomputing is tried only where it saves parts. Parameters are spread only where
    nothing fits otherwise: gathering them costs more than it saves.

    Args:
      say: is told of each trial.

    Raises:
      UserError: nothing fits, or the batch does not divide over the chips.
    """
    found: list[tuple[Overrides, Plan]] = []
    for layout in _layouts(topology):
        if found and layout["mesh.fsdp"] > 1:
            break
        fewest = math.inf
        for remat in _REMAT:
            for accumulation in _accumulations(config, topology):
                if accumulation >= fewest:
                    break
                overrides = {**layout, "model.remat": remat, "train.accumulation": accumulation}
                plan = make_plan(with_overrides(config, overrides), topology)
                say(f"{as_flags(overrides)}: {_verdict(plan)}")
                if not is_too_large(plan):
                    found.append((overrides, plan))
                    fewest = accumulation
                    break
    if not found:
        raise UserError(f"topology {topology}: nothing fits, not even one row at a time with remat='full' over "
                        f"fsdp={_FSDP}; take chips with more memory, or a smaller config.model.size")
    return sorted(found, key=lambda pair: pair[1].seconds(True) if pair[1].estimate else 0.0)


def with_overrides(config: ml_collections.ConfigDict, overrides: Overrides) -> ml_collections.ConfigDict:
    """A copy of a config with fields set by their names."""
    copy = config.copy_and_resolve_references()
    copy.update_from_flattened_dict(overrides)
    return copy


def as_flags(overrides: Overrides) -> str:
    """Overrides as they are written behind a command."""
    return " ".join(f"--config.{name}={value}" for name, value in overrides.items())


def is_too_large(plan: Plan) -> bool:
    """Whether a step does not fit in a chip's memory."""
    limit = plan.topology.chip.memory
    return isinstance(plan.found, TooLarge) or bool(limit) and used(plan.found) > limit


def in_short(overrides: Overrides) -> str:
    """Overrides by the last part of their names, for a table."""
    return " ".join(f"{name.rpartition('.')[2]}={value}" for name, value in overrides.items() if name != "mesh.data")


def _layouts(topology: Topology) -> Iterator[Overrides]:
    """Ways of laying out the state: whole on every chip, the optimiser's part spread, and parameters too."""
    yield {"mesh.data": -1, "mesh.fsdp": 1, "mesh.zero1": False}
    if topology.chips > 1:
        yield {"mesh.data": -1, "mesh.fsdp": 1, "mesh.zero1": True}
        yield {"mesh.data": -1, "mesh.fsdp": math.gcd(_FSDP, topology.chips // topology.slices), "mesh.zero1": True}


def _accumulations(config: ml_collections.ConfigDict, topology: Topology) -> list[int]:
    """Numbers of parts that leave every chip whole rows, doubling."""
    rows, chips = config.train.batch_size, topology.chips // config.mesh.tensor
    if rows % chips:
        raise UserError(f"config.train.batch_size={rows}: does not divide over {chips:,} chips; use a multiple of "
                        f"{chips:,}, such as {max(chips, rows // chips * chips):,}")
    return [2**power for power in range(20) if rows // chips % 2**power == 0]


def _verdict(plan: Plan) -> str:
    if is_too_large(plan):
        return "does not fit"
    if not plan.estimate:
        return "fits"
    return f"fits, {1e3 * plan.seconds(False):.0f} to {1e3 * plan.seconds(True):.0f} ms a step"
