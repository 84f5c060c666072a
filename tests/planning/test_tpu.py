"""Base and large compiled for a small TPU slice by the real compiler, against what is known of them.

The layers are scanned here: unrolled, as they are planned and run, they take minutes to compile.
"""
import concurrent.futures
import importlib.util
import math

import flax.linen as nn
import jax
import pytest

from spanbert_jax.commands.configs import load_config
from spanbert_jax.commands.main import main
from spanbert_jax.model import ModelConfig, SpanBert
from spanbert_jax.planning.compiler.steps import TooLarge
from spanbert_jax.planning.hardware import parse_topology
from spanbert_jax.planning.plans import Plan, make_plan
from spanbert_jax.planning.report import used
from spanbert_jax.training.state import init_params

pytestmark = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="the TPU compiler (libtpu) is not "
                                "installed: pip install 'jax[tpu]'")
# Bytes, measured with jax 0.10.2 and libtpu 0.0.42.1 on this program.
EXPECTED_TEMPORARIES = {"base": 2.54e9, "large": 4.25e9}
TOPOLOGY, ROWS = parse_topology("v5e:2x2"), 8


def planned(name: str, *overrides: str) -> Plan:
    config = load_config(f"configs/{name}.py", ["--config.model.layers=scanned", *overrides])
    return make_plan(config, TOPOLOGY)


@pytest.fixture(scope="module")
def plans() -> dict[str, Plan]:
    """Base with the whole state on every chip, large with the parameters over pairs of chips and ZeRO-1."""
    batch = f"--config.train.batch_size={ROWS * TOPOLOGY.chips}"
    with concurrent.futures.ThreadPoolExecutor() as pool:
        base = pool.submit(planned, "base", batch)
        large = pool.submit(planned, "large", batch, "--config.mesh.fsdp=2", "--config.mesh.zero1=True")
        return {"base": base.result(), "large": large.result()}


def parameter_bytes(size: str) -> int:
    network = ModelConfig.named(size, vocab_size=28_996)
    leaves = jax.tree.leaves(nn.unbox(jax.eval_shape(lambda: init_params(SpanBert(network), jax.random.key(0)))))
    return 4 * sum(math.prod(leaf.shape) for leaf in leaves)


def test_each_chip_holds_its_part_of_the_state(plans):
    base, large = plans["base"].found, plans["large"].found
    assert base.parameter_bytes == parameter_bytes("base")
    assert base.optimizer_bytes == pytest.approx(2 * base.parameter_bytes, rel=1e-3)
    # Kernels and tables are split in two, and the optimiser's share once more; vectors are not.
    assert large.parameter_bytes == pytest.approx(parameter_bytes("large") / 2, rel=0.01)
    assert large.optimizer_bytes == pytest.approx(large.parameter_bytes, rel=0.03)


def test_temporaries_stay_what_they_were(plans):
    assert plans["base"].found.temporary_bytes == pytest.approx(EXPECTED_TEMPORARIES["base"], rel=0.15)
    assert plans["large"].found.temporary_bytes == pytest.approx(EXPECTED_TEMPORARIES["large"], rel=0.15)
    for plan in plans.values():
        # Attention scores of a single layer, in float32, would be all of this.
        assert 0.3 * plan.found.temporary_bytes < plan.found.activation_bytes < plan.found.temporary_bytes
        assert used(plan.found) < TOPOLOGY.chip.memory


def test_the_attention_of_every_layer_is_the_kernel_for_pairs_of_heads(plans):
    for plan, layers in ((plans["base"], 12), (plans["large"], 24)):
        assert plan.found.kernels == {"paired_attention_forward": layers, "paired_attention_backward": layers}


def test_dropout_draws_on_no_generator(plans):
    assert all("rng-bit-generator" not in plan.found.silent for plan in plans.values())


def test_gradients_are_reduced_once(plans):
    base = plans["base"].found
    assert {one.group for one in base.collectives if one.bytes > 1000} == {4}
    reduced = sum(one.runs * one.bytes for one in base.collectives if one.kind == "all-reduce")
    assert reduced == pytest.approx(base.parameter_bytes, rel=0.02)
    kinds = {one.kind for one in plans["large"].found.collectives if one.bytes > 1e5}
    assert "all-gather" in kinds  # of the parameters that are split


def test_the_estimate_is_within_what_the_chip_can_do(plans):
    for plan in plans.values():
        time = plan.estimate
        assert 0.2 < plan.utilization(raw=True) < plan.utilization(raw=False) < 1
        assert plan.utilization(raw=False, communication=True) < plan.utilization(raw=False)
        # The products alone cannot be faster than the peak; those of attention are the kernels'.
        attention = 3 * 4.0 * ROWS * 512 * 512 * plan.found.heads * 64 * sum(plan.found.kernels.values()) / 2
        assert time.products > (plan.found.flops - attention) / TOPOLOGY.chip.flops
        assert time.kernels > attention / TOPOLOGY.chip.flops


def test_what_is_too_large_is_told_with_the_compilers_figures(capsys):
    flags = ["--config.model.layers=scanned", "--config.train.batch_size=4096"]
    plan = planned("base", *flags)
    assert isinstance(plan.found, TooLarge) and plan.found.available == 15.75 * 2**30 < plan.found.needed
    assert main(["plan", "--config", "configs/base.py", "--topology", "v5e:2x2", *flags]) == 1
    assert "DOES NOT FIT" in capsys.readouterr().out


def test_a_batch_that_does_not_divide_is_told_in_a_line(capsys):
    assert main(["plan", "--config", "configs/base.py", "--topology", "v5e:2x2", "--config.train.batch_size=6"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "6 rows do not divide over the 4 devices" in said
