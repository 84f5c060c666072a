"""Base and large compiled for a small TPU slice by the real compiler.

The layers are scanned here: unrolled layers, which runs use, take minutes to compile.
"""
import importlib.util
import math

import flax.linen as nn
import jax
import pytest

from spanbert_jax.commands.config_files import as_run_config, load_config
from spanbert_jax.commands.main import main
from spanbert_jax.model import BertConfig, SpanBert
from spanbert_jax.planning.compiler.steps import OutOfMemory
from spanbert_jax.planning.hardware import parse_topology
from spanbert_jax.planning.plans import Plan, make_plan
from spanbert_jax.training.state import init_params

pytestmark = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="the TPU compiler (libtpu) is not "
                                "installed: pip install 'jax[tpu]'")
# Bytes, measured with jax 0.10.2 and libtpu 0.0.42.1 on these programs.
EXPECTED_TEMPORARIES = {"base": 2.75e9, "large": 5.02e9}
LEAST_UTILIZATION = 0.06  # of the chip's peak, by the slow matrix products of programs that are compiled quickly
TOPOLOGY, ROWS = parse_topology("v5e:2x2"), 8


def plan_run(name: str, *overrides: str) -> Plan:
    config = load_config(f"configs/{name}.py", ["--config.compute.layers=scanned", *overrides])
    return make_plan(as_run_config(config), TOPOLOGY)


@pytest.fixture(scope="module")
def plans() -> dict[str, Plan]:
    """Large sharded over 2 chips and with ZeRO-1; base with the whole state on every chip.

    The compiler makes the least effort, which takes a third of the time: it skips the search for fast matrix products.
    """
    batch = f"--config.train.batch_size={ROWS * TOPOLOGY.chips}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_EXEC_TIME_OPTIMIZATION_EFFORT", "-1")
        return {"base": plan_run("base", batch),
                "large": plan_run("large", batch, "--config.mesh.fsdp=2", "--config.mesh.zero1=True")}


def parameter_bytes(size: str) -> int:
    model = SpanBert(BertConfig.named(size, vocab_size=28_996))
    leaves = jax.tree.leaves(nn.unbox(jax.eval_shape(lambda: init_params(model, jax.random.key(0)))))
    return 4 * sum(math.prod(leaf.shape) for leaf in leaves)


def test_each_chip_has_its_shard_of_the_state(plans):
    base, large = plans["base"].step, plans["large"].step
    assert base.parameter_bytes == parameter_bytes("base")
    assert base.optimizer_bytes == pytest.approx(2 * base.parameter_bytes, rel=1e-3)
    # Kernels and embeddings are sharded over 2 chips, their optimizer state over 4; vectors are not sharded.
    assert large.parameter_bytes == pytest.approx(parameter_bytes("large") / 2, rel=0.01)
    assert large.optimizer_bytes == pytest.approx(large.parameter_bytes, rel=0.03)


def test_temporary_bytes_have_not_changed(plans):
    assert plans["base"].step.temporary_bytes == pytest.approx(EXPECTED_TEMPORARIES["base"], rel=0.15)
    assert plans["large"].step.temporary_bytes == pytest.approx(EXPECTED_TEMPORARIES["large"], rel=0.15)
    for plan in plans.values():
        # The float32 attention scores of a single layer would exceed this.
        assert 0.3 * plan.step.temporary_bytes < plan.step.activation_bytes < plan.step.temporary_bytes
        assert plan.step.total_bytes < TOPOLOGY.chip.memory


def test_every_layer_uses_the_paired_attention_kernel(plans):
    for plan, layers in ((plans["base"], 12), (plans["large"], 24)):
        assert plan.step.kernels == {"paired_attention_forward": layers, "paired_attention_backward": layers}


def test_dropout_uses_no_random_generator_of_xla(plans):
    assert all("rng-bit-generator" not in plan.step.uncounted for plan in plans.values())


def test_gradients_are_reduced_once(plans):
    base = plans["base"].step
    assert {one.group for one in base.collectives if one.bytes > 1000} == {4}
    reduced = sum(one.runs * one.bytes for one in base.collectives if one.kind == "all-reduce")
    assert reduced == pytest.approx(base.parameter_bytes, rel=0.02)
    kinds = {one.kind for one in plans["large"].step.collectives if one.bytes > 1e5}
    assert "all-gather" in kinds  # of the sharded parameters


def test_the_estimate_is_below_the_peak_of_the_chip(plans):
    for plan in plans.values():
        time = plan.time
        assert LEAST_UTILIZATION < time.utilization(raw=True) < time.utilization(raw=False) < 1
        assert time.utilization(raw=False, communication=True) < time.utilization(raw=False)
        # Matrix products take at least the time at the peak; those of attention are in the kernels.
        attention = 3 * 4.0 * ROWS * 512 * 512 * plan.step.heads * 64 * sum(plan.step.kernels.values()) / 2
        assert time.products > (plan.step.flops - attention) / TOPOLOGY.chip.flops
        assert time.kernels > attention / TOPOLOGY.chip.flops


def test_a_step_that_is_too_large_gives_the_compilers_figures(capsys):
    flags = ["--config.compute.layers=scanned", "--config.train.batch_size=4096"]
    plan = plan_run("base", *flags)
    assert isinstance(plan.step, OutOfMemory) and plan.step.available == 15.75 * 2**30 < plan.step.needed
    assert main(["plan", "--config", "configs/base.py", "--topology", "v5e:2x2", *flags]) == 1
    assert "DOES NOT FIT" in capsys.readouterr().out


def test_a_batch_that_does_not_divide_gives_a_one_line_error(capsys):
    assert main(["plan", "--config", "configs/base.py", "--topology", "v5e:2x2", "--config.train.batch_size=6"]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and "6 rows cannot be divided over the 4 devices" in printed
