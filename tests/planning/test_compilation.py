"""Compiling in a subprocess: the cache, and messages when there is no compiler, it crashes or refuses."""
import json
import subprocess

import pytest

from spanbert_jax.commands.main import main
from spanbert_jax.common.errors import UserError
from spanbert_jax.planning import compilation
from spanbert_jax.planning.compiler.steps import OutOfMemory, out_of_memory
from spanbert_jax.planning.compiler.worker import handle
from spanbert_jax.planning.hardware import parse_topology
from tests.runs import visible_devices

CPU, V5E = parse_topology("cpu:1"), parse_topology("v5e:16x16")


@pytest.fixture
def worker(monkeypatch, tmp_path):
    """Replaces the subprocess: it writes `result`, or crashes if that is None; `calls` counts its runs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    state = {"calls": 0, "result": {"cycles": {}}, "stderr": ""}

    def run(command, **_):
        state["calls"] += 1
        if state["result"] is not None:
            with open(command[-1], "w", encoding="utf-8") as file:
                json.dump(state["result"], file)
        return subprocess.CompletedProcess(command, -6, "", state["stderr"])

    monkeypatch.setattr(compilation.subprocess, "run", run)
    return state


def test_results_are_cached_until_the_request_the_flags_or_the_code_change(worker, monkeypatch):
    for _ in range(2):
        assert compilation.run_compiler(CPU, {"x": 1}) == {"cycles": {}}
    assert worker["calls"] == 1
    compilation.run_compiler(CPU, {"x": 2})
    assert worker["calls"] == 2
    monkeypatch.setenv("JAX_OPTIMIZATION_LEVEL", "O1")
    compilation.run_compiler(CPU, {"x": 1})
    assert worker["calls"] == 3
    monkeypatch.delenv("JAX_OPTIMIZATION_LEVEL")
    monkeypatch.setattr(compilation, "_code_hash", lambda: "of another version")
    compilation.run_compiler(CPU, {"x": 1})
    assert worker["calls"] == 4


def test_errors_are_raised_and_not_cached(worker):
    worker["result"] = {"error": "config.mesh: no"}
    for _ in range(2):
        with pytest.raises(UserError, match="config.mesh: no"):
            compilation.run_compiler(CPU, {})
    assert worker["calls"] == 2


def test_a_crash_of_the_compiler_gives_its_reason(worker):
    worker |= {"result": None,
               "stderr": "F0000 x.cc:1] Check failed: bounds.x <= 16 (32 vs. 16)\n*** stack\n  @ 0x7f\n"}
    with pytest.raises(UserError) as error:
        compilation.run_compiler(CPU, {})
    assert "cpu:1: the compiler exited with status -6" in str(error.value)
    assert "Check failed: bounds.x" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("topology,how", [("v5e:2x2", r"pip install 'jax\[tpu\]'"), ("h100:8", "jax-cuda12-plugin==")])
def test_a_missing_compiler_gives_one_line_with_how_to_install_it(topology, how, monkeypatch, capsys):
    monkeypatch.setattr(compilation.importlib.util, "find_spec", lambda name: None)
    assert main(["plan", "--config", "configs/base.py", "--topology", topology]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and f"topology {topology}: its compiler is not installed; pip" in printed
    assert how.replace("\\", "") in printed


def test_a_cpu_plan_states_devices_rows_and_collectives(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # compiles faster
    command = ["plan", "--config", "configs/quickstart.py", "--config.data.length=32", "--config.train.batch_size=4",
               "--config.compute.layers=scanned", "--config.model.width=32", "--config.model.feed_forward=64"]
    assert main([*command, "--topology", "cpu:2"]) == 0
    printed = capsys.readouterr().out
    assert "cpu:2: 2 devices" in printed and "4 rows of 32 tokens per step, 2 per device at a time" in printed
    assert "all-reduce over 2" in printed

    def in_process(topology, request):
        with visible_devices(topology.chips):
            return handle(request)

    monkeypatch.setattr(compilation, "_run_worker", in_process)
    assert main([*command, "--topology", "cpu:3"]) == 2
    assert "4 rows cannot be divided over the 3 devices" in capsys.readouterr().err
    assert main([*command, "--topology", "cpu:2", "--config.evaluation.batch_size=7"]) == 2
    assert "config.evaluation.batch_size: 7 rows cannot be divided over the 2 devices" in capsys.readouterr().err
    assert main([*command, "--topology", "cpu:2", "--config.train.duration=2 epochs"]) == 2
    assert "config.train.duration='2 epochs': the length of an epoch is unknown" in capsys.readouterr().err


@pytest.mark.parametrize("message,needed", [
    ("RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. "
     "Used 18.66G of 15.75G hbm. Exceeded hbm capacity by 2.91G.", 18.66 * 2**30),
    ("RESOURCE_EXHAUSTED: Size of HLO temporaries (20.5G) exceeds available HBM (15.75G)", 20.5 * 2**30 + 100),
    ("RESOURCE_EXHAUSTED: no room", 0)])
def test_the_memory_that_a_step_needs_is_read_from_the_message(message, needed):
    assert out_of_memory(message, 100, V5E.chip) == OutOfMemory(needed, 15.75 * 2**30)


@pytest.mark.parametrize("message", [
    "RESOURCE_EXHAUSTED: E1001: CompileTimeScopedVmemOom:\nRan out of memory in memory space vmem while allocating on "
    "stack for %splash_mha_dkv_segmented_no_residuals.1 = bf16[8]",
    "RESOURCE_EXHAUSTED: Allocation (size=268435456) would exceed memory (size=134217728) :: #allocation2 [shape = "
    "'u8[268435456]{0}', space=vmem, size = 0x10000000]"])
def test_a_kernel_that_exceeds_the_vector_memory_is_no_lack_of_memory_for_the_batch(message):
    with pytest.raises(UserError, match=r"a kernel needs more than the vector memory \(VMEM\) of the chip: .*"
                       r"config.compute.attention='plain'") as error:
        out_of_memory(message, 100, V5E.chip)
    assert "\n" not in str(error.value)
