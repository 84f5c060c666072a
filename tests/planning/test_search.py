"""The search for the fastest settings, with a fake compiler."""
import dataclasses

import pytest

from spanbert_jax.commands.config_files import as_run_config, load_config
from spanbert_jax.common.errors import UserError
from spanbert_jax.planning import search as searching
from spanbert_jax.planning.compiler.steps import OutOfMemory
from spanbert_jax.planning.hardware import parse_topology
from tests.planning.test_estimate import STEP
from tests.planning.test_estimate import make_plan as plan_of

TOPOLOGY = parse_topology("v5e:2x2")
# For each remat policy: GiB per row, and the factor by which it slows down a step.
ROW_GIB = {"none": 1.0, "names": 0.4, "full": 0.1}
SLOWER = {"none": 1.0, "names": 1.1, "full": 1.3}


@pytest.fixture
def compiler(monkeypatch):
    """Replaces the compiler; yields the settings of its calls, and the GiB of the unsharded state, to be set."""
    tried, state_gib = [], [1.0]

    def make_plan(config, topology):
        config.train.validate("config.train")
        remat, accumulation = config.compute.remat, config.train.accumulation
        shards = config.mesh.fsdp if config.mesh.fsdp > 1 else 1.5 if config.mesh.zero1 else 1
        rows = config.train.batch_size // topology.chips // accumulation
        gib = state_gib[0] / shards + rows * ROW_GIB[remat]
        tried.append((config.mesh.fsdp, config.mesh.zero1, remat, accumulation))
        if gib > 15:
            return plan_of(OutOfMemory(gib * 2**30, 15.75 * 2**30), topology)
        cycles = 90e6 * SLOWER[remat] * (1 + 0.02 * accumulation)
        return plan_of(dataclasses.replace(STEP, rows=rows, product_cycles=cycles), topology)

    monkeypatch.setattr(searching, "make_plan", make_plan)
    return tried, state_gib


def search(rows: int, tried) -> list:
    config = load_config("configs/base.py", [f"--config.train.batch_size={rows}", "--config.data.path=x",
                                              "--config.train.accumulation=2", "--config.train.batch_warmup=9 steps"])
    lines: list[str] = []
    found = searching.search(as_run_config(config), TOPOLOGY, lines.append)
    assert len(lines) == len(tried)
    return found


def test_if_everything_fits_only_zero1_is_compared(compiler):
    tried, _ = compiler
    found = search(4 * 8, tried)
    assert tried == [(1, False, "none", 1), (1, True, "none", 1)] and len(found) == 2


def test_remat_is_compared_with_accumulation_and_the_fastest_is_first(compiler):
    tried, _ = compiler
    found = search(4 * 32, tried)
    # 32 rows fit in 4 microbatches without remat, and in 1 with 'names'.
    settings = [(overrides["compute.remat"], overrides["train.accumulation"]) for overrides, _ in found]
    assert set(settings) == {("none", 4), ("names", 1)} and settings[:2] == [("none", 4)] * 2
    times = [plan.time.total(raw=True) for _, plan in found]
    assert times == sorted(times)


def test_a_state_too_large_for_a_chip_is_sharded(compiler):
    tried, state = compiler
    state[0] = 16.0
    found = search(4 * 8, tried)
    assert all(overrides["mesh.zero1"] and overrides["mesh.fsdp"] == 1 for overrides, _ in found)
    state[0] = 40.0
    tried.clear()
    found = search(4 * 8, tried)
    assert all(overrides["mesh.fsdp"] == 4 for overrides, _ in found)


def test_the_flags_found_are_valid_overrides(compiler):
    tried, _ = compiler
    overrides, _ = search(4 * 8, tried)[0]
    config = load_config("configs/base.py", searching.as_flags(overrides).split())
    assert config.compute.remat == "none" and config.mesh.zero1 is False


def test_nothing_fits_or_divides_gives_an_error(compiler):
    tried, state = compiler
    with pytest.raises(UserError, match="batch_size=30: does not divide over 4 chips; use a multiple of 4, such as 28"):
        search(30, tried)
    state[0] = 1000.0
    with pytest.raises(UserError, match="nothing fits"):
        search(4, tried)
