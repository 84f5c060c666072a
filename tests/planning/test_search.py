"""The search for the fastest settings, over a compiler of our own invention."""
import dataclasses

import pytest

from spanbert_jax.commands.configs import load_config
from spanbert_jax.common.errors import UserError
from spanbert_jax.planning import search as searching
from spanbert_jax.planning.compiler.steps import TooLarge
from spanbert_jax.planning.hardware import parse_topology
from tests.planning.test_estimate import STEP, plan

TOPOLOGY = parse_topology("v5e:2x2")
# Of a chip: what each way of recomputing takes for a row, in GiB, and how much longer it makes a step.
ROW_GIB = {"none": 1.0, "names": 0.4, "full": 0.1}
SLOWER = {"none": 1.0, "names": 1.1, "full": 1.3}


@pytest.fixture
def compiler(monkeypatch):
    """Stands in for the compiler; returns what it was asked, and takes the GiB of a whole state."""
    asked, state_gib = [], [1.0]

    def make_plan(config, topology):
        remat, parts = config.model.remat, config.train.accumulation
        spread = config.mesh.fsdp if config.mesh.fsdp > 1 else 1.5 if config.mesh.zero1 else 1
        rows = config.train.batch_size // topology.chips // parts
        gib = state_gib[0] / spread + rows * ROW_GIB[remat]
        asked.append((config.mesh.fsdp, config.mesh.zero1, remat, parts))
        if gib > 15:
            return plan(TooLarge(gib * 2**30, 15.75 * 2**30), topology)
        cycles = 90e6 * SLOWER[remat] * (1 + 0.02 * parts)
        return plan(dataclasses.replace(STEP, rows=rows, product_cycles=cycles), topology)

    monkeypatch.setattr(searching, "make_plan", make_plan)
    return asked, state_gib


def found_for(rows: int, asked) -> list:
    config = load_config("configs/base.py", [f"--config.train.batch_size={rows}", "--config.data.path=x"])
    lines: list[str] = []
    found = searching.search(config, TOPOLOGY, lines.append)
    assert len(lines) == len(asked)
    return found


def test_where_all_fits_only_the_optimisers_layout_is_weighed(compiler):
    asked, _ = compiler
    found = found_for(4 * 8, asked)
    assert asked == [(1, False, "none", 1), (1, True, "none", 1)] and len(found) == 2


def test_recomputing_is_weighed_against_parts_and_the_fastest_is_first(compiler):
    asked, _ = compiler
    found = found_for(4 * 32, asked)
    # Without recomputing 32 rows take three doublings; with names one, with full none.
    settings = [(overrides["model.remat"], overrides["train.accumulation"]) for overrides, _ in found]
    assert set(settings) == {("none", 4), ("names", 1)} and settings[:2] == [("none", 4)] * 2
    times = [plan.seconds(True) for _, plan in found]
    assert times == sorted(times)


def test_a_state_too_large_for_a_chip_is_spread(compiler):
    asked, state = compiler
    state[0] = 16.0
    found = found_for(4 * 8, asked)
    assert all(overrides["mesh.zero1"] and overrides["mesh.fsdp"] == 1 for overrides, _ in found)
    state[0] = 40.0
    asked.clear()
    found = found_for(4 * 8, asked)
    assert all(overrides["mesh.fsdp"] == 4 for overrides, _ in found)


def test_overrides_are_ones_to_paste(compiler):
    asked, _ = compiler
    overrides, _ = found_for(4 * 8, asked)[0]
    again = load_config("configs/base.py", searching.as_flags(overrides).split())
    assert again.model.remat == "none" and again.mesh.zero1 is False


def test_nothing_fits_or_divides_is_told_in_a_line(compiler):
    asked, state = compiler
    with pytest.raises(UserError, match="batch_size=30: does not divide over 4 chips; use a multiple of 4, such as 28"):
        found_for(30, asked)
    state[0] = 1000.0
    with pytest.raises(UserError, match="nothing fits"):
        found_for(4, asked)
