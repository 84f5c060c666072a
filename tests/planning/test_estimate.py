"""Estimated times from cycles and bytes, against figures computed by hand."""
import dataclasses

import pytest

from spanbert_jax.planning.compiler.hlo import Collective
from spanbert_jax.planning.compiler.steps import CompiledStep, OutOfMemory
from spanbert_jax.planning.estimate import collective_seconds, estimate_step_time
from spanbert_jax.planning.hardware import parse_topology
from spanbert_jax.planning.plans import Plan
from spanbert_jax.planning.report import compare, describe

V5E, SLICES = parse_topology("v5e:16x16"), parse_topology("4*v5e:16x16")
SMALL = Collective("all-reduce", 4, 256, False, False, 1)
LARGE = Collective("all-reduce", 200_000_000, 256, False, False, 2)
OVERLAPPED = Collective("all-gather", 100_000_000, 4, True, True, 1)
STEP = CompiledStep(
    rows=32, length=512, parameters=110_000_000, attention="paired_heads", heads=12, accumulation=1,
    flops=9.85e12, seconds=100, parameter_bytes=2**29, optimizer_bytes=2**30, batch_bytes=0,
    activation_bytes=3 * 2**30, temporary_bytes=4 * 2**30, program_bytes=2**28, product_cycles=90e6, other_cycles=30e6,
    other_roofline_cycles=15e6, kernels={"a": 12, "b": 12}, uncounted={"sort": 3}, collectives=(SMALL, LARGE))


def make_plan(step=STEP, topology=V5E) -> Plan:
    fits = isinstance(step, CompiledStep)
    time = estimate_step_time(step, topology, {"a": 1000.0, "b": 2000.0}) if fits else None
    return Plan(topology, 8192, 512, 1000, step, time)


def test_times_are_cycles_over_the_clock_and_kernels_times_their_grid():
    time = estimate_step_time(STEP, V5E, {"a": 1000.0, "b": 2000.0})
    kernels = 12 * 32 * 12 * 3000 / 1.5e9
    assert time.kernels == pytest.approx(kernels)
    assert time.computation(raw=True) == pytest.approx(0.06 + 0.02 + kernels)
    assert time.computation(raw=False) == pytest.approx(0.07 + kernels)
    # A ring of 256 over 100 GB/s: 2 x 255/256 of the bytes leave each chip.
    assert time.exposed == pytest.approx(2 * 2 * 255 / 256 * 200e6 / 100e9, rel=1e-4)
    assert time.utilization(raw=True) == pytest.approx(9.85e12 / 197e12 / time.computation(True))
    assert time.utilization(True, True) == pytest.approx(9.85e12 / 197e12 / (time.computation(True) + time.exposed))


@pytest.mark.parametrize("kind,passes", [("all-reduce", 6 / 4), ("all-gather", 3 / 4), ("reduce-scatter", 3 / 4),
                                         ("all-to-all", 3 / 4), ("collective-permute", 1)])
def test_collectives_are_priced_as_rings(kind, passes):
    one = Collective(kind, 1000, 4, False, False, 1)
    assert collective_seconds(one, V5E) == pytest.approx(passes * 1000 / V5E.chip.link)
    across = dataclasses.replace(one, crosses_slices=True)
    assert collective_seconds(across, SLICES) == pytest.approx(passes * 1000 / V5E.chip.network)
    assert collective_seconds(dataclasses.replace(one, group=1), V5E) == 0


def test_overlapped_collectives_cost_no_time():
    overlapped = dataclasses.replace(STEP, collectives=(OVERLAPPED,))
    time = estimate_step_time(overlapped, SLICES, {})
    assert time.exposed == 0 < collective_seconds(OVERLAPPED, SLICES)


def test_the_report_adds_up_and_states_that_it_is_an_estimate():
    text = describe(make_plan())
    assert "ESTIMATED" in text and "never timed" in text
    assert "Fits: 5.75 of 15.75 GiB per chip, 10.00 GiB (63%) to spare." in text
    memory = {line.rsplit(None, 1)[0].strip(): float(line.rsplit(None, 1)[1]) for line in text.splitlines()
              if line.strip().startswith(("parameters", "optimizer", "batch", "activations", "other temp", "program"))}
    assert sum(memory.values()) == pytest.approx(5.75) and memory["activations for the backward pass"] == 3
    assert "Not counted: sort (3)." in text
    assert "all-reduce over 256" in text and "run of 1,000 steps, 4.19B tokens" in text


def test_a_step_that_does_not_fit_lists_settings_to_change():
    text = describe(make_plan(OutOfMemory(18.66 * 2**30, 15.75 * 2**30)))
    assert "DOES NOT FIT: 18.66 of 15.75 GiB per chip" in text and "config.train.accumulation" in text
    tight = dataclasses.replace(STEP, temporary_bytes=20 * 2**30)
    assert "DOES NOT FIT: 21.75 of 15.75 GiB per chip" in describe(make_plan(tight))
    lines = compare([make_plan(), make_plan(OutOfMemory(0.0, 1.0)), make_plan(tight)]).splitlines()
    assert [("does not fit" in line) for line in lines[-3:]] == [False, True, True]


def test_without_cycles_there_are_memory_and_collectives_but_no_time():
    gpu = dataclasses.replace(STEP, product_cycles=None)
    text = describe(make_plan(gpu, parse_topology("h100:8")), price=3.0)
    assert "Fits" in text and "no estimate of the time" in text and "MFU" not in text
    # 1000 steps of 9.85e12 operations on each of 8 devices with a peak of 989e12 per second.
    assert text.endswith("a step takes at least 9.96 ms and the run 10 s: 0.0221 chip-hours, which cost 0.0664.")


def test_the_cpu_is_that_of_this_machine(monkeypatch):
    monkeypatch.setattr("spanbert_jax.planning.hardware.free_host_memory", lambda: 16 * 2**30)
    monkeypatch.setattr("spanbert_jax.planning.report.measure_flops", lambda: 100e9)
    step = dataclasses.replace(STEP, product_cycles=None)
    text = describe(make_plan(step, parse_topology("cpu:2")))
    assert "Fits: 5.75 of 8.00 GiB per chip" in text
    assert "At 50 GFLOP/s per device, as a matrix product reaches now, a step takes at least 197,000 ms" in text
    assert "DOES NOT FIT: 5.75 of 4.00 GiB" in describe(make_plan(step, parse_topology("cpu:4")))


def test_prices_give_the_cost_of_a_run():
    plan = make_plan()
    hours = [1000 * plan.time.total(raw) / 3600 * 256 for raw in (True, False)]
    row = next(line for line in describe(plan, price=1.5).splitlines() if "cost at 1.5 per chip-hour" in line)
    assert row.split()[-2:] == [f"{1.5 * each:,.0f}" for each in hours]
    assert "cost" not in describe(plan) and "cost" not in compare([plan])
    lines = compare([plan, make_plan(topology=SLICES)], prices={"v5p": 2.0}).splitlines()
    assert lines[0].endswith("cost") and lines[2].endswith("-")
    assert compare([plan], prices={"v5e": 1.5}).endswith(f"{1.5 * hours[1]:,.0f}-{1.5 * hours[0]:,.0f}")
