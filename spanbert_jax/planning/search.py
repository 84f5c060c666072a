"""Searches for the settings with which a run is fastest on a topology, among those that fit."""
import math
from collections.abc import Callable, Iterator

from spanbert_jax.common.errors import UserError
from spanbert_jax.planning.hardware import Topology
from spanbert_jax.planning.plans import Plan, make_plan
from spanbert_jax.pretraining.config import PretrainingConfig

# Values of `config.compute.remat` to try, from the fastest to the one that needs least memory.
_REMAT = ("none", "names", "full")
# Devices over which parameters are sharded if they do not fit otherwise. With more, the shards are too small.
_FSDP = 16

Overrides = dict[str, str | int | bool]


def search(config: PretrainingConfig, topology: Topology, log: Callable[[str], None]) -> list[tuple[Overrides, Plan]]:
    """Tries settings that compute the same batch, and returns those that fit, the fastest first.

    The batch size, and so the result of training, stays the same. For each sharding of the state and each remat policy
    the search takes the fewest microbatches that fit; a remat policy is tried only where it needs fewer microbatches
    than the ones before it. Parameters are sharded only if nothing else fits, because gathering them costs more than
    it saves. `log` is called with a line of text for each trial.

    Raises:
      UserError: nothing fits, or the batch does not divide over the chips.
    """
    found: list[tuple[Overrides, Plan]] = []
    # A batch of one microbatch cannot grow, and full batches need as much memory without growth.
    config = with_overrides(config, {"train.batch_warmup": "0 steps"})
    for sharding in _shardings(topology):
        if found and sharding["mesh.fsdp"] != 1:
            break
        found += _fewest_microbatches(config, topology, sharding, log)
    if not found:
        raise UserError(f"topology {topology}: nothing fits, not even one row at a time with remat='full' and "
                        f"fsdp={_FSDP}; use chips with more memory, or a smaller config.model.size")
    return sorted(found, key=lambda pair: pair[1].time.total(raw=True) if pair[1].time else 0.0)


def _fewest_microbatches(config: PretrainingConfig, topology: Topology, sharding: Overrides,
                         log: Callable[[str], None]) -> Iterator[tuple[Overrides, Plan]]:
    """For each remat policy the fewest microbatches that fit, if fewer than those of the policies before it."""
    fewest = math.inf
    for remat in _REMAT:
        for accumulation in _accumulations(config, topology):
            if accumulation >= fewest:
                break
            overrides = {**sharding, "compute.remat": remat, "train.accumulation": accumulation}
            plan = make_plan(with_overrides(config, overrides), topology)
            log(f"{as_flags(overrides)}: {_verdict(plan)}")
            if plan.fits:
                fewest = accumulation
                yield overrides, plan
                break


def with_overrides(config: PretrainingConfig, overrides: Overrides) -> PretrainingConfig:
    """A copy of a config with other values of some fields."""
    for field, value in overrides.items():
        section, name = field.split(".")
        config = config.replace(**{section: getattr(config, section).replace(**{name: value})})
    return config


def as_flags(overrides: Overrides) -> str:
    """Overrides as arguments of a command."""
    return " ".join(f"--config.{name}={value}" for name, value in overrides.items())


def abbreviate(overrides: Overrides) -> str:
    """Overrides with the last part of their names only, for a table."""
    return " ".join(f"{name.rpartition('.')[2]}={value}" for name, value in overrides.items() if name != "mesh.data")


def _shardings(topology: Topology) -> Iterator[Overrides]:
    """Shardings of the state: none, the optimizer state only, and the parameters too."""
    yield {"mesh.data": -1, "mesh.fsdp": 1, "mesh.zero1": False}
    if topology.chips > 1:
        yield {"mesh.data": -1, "mesh.fsdp": 1, "mesh.zero1": True}
        yield {"mesh.data": -1, "mesh.fsdp": math.gcd(_FSDP, topology.chips // topology.slices), "mesh.zero1": True}


def _accumulations(config: PretrainingConfig, topology: Topology) -> list[int]:
    """Numbers of microbatches in which every chip has whole rows: powers of two."""
    rows, chips = config.train.batch_size, topology.chips // config.mesh.tensor
    if rows % chips:
        raise UserError(f"config.train.batch_size={rows}: does not divide over {chips:,} chips; use a multiple of "
                        f"{chips:,}, such as {max(chips, rows // chips * chips):,}")
    return [2**power for power in range(20) if rows // chips % 2**power == 0]


def _verdict(plan: Plan) -> str:
    if not plan.fits:
        return "does not fit"
    if not plan.time:
        return "fits"
    return f"fits, {1e3 * plan.time.total(raw=False):.0f} to {1e3 * plan.time.total(raw=True):.0f} ms per step"
