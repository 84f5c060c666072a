"""The TPU kernel for heads of width 64 and 128, interpreted on the CPU, against the definition of attention."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from spanbert_jax.model.attention import AttentionInputs, AttentionSpec, paired_heads
from spanbert_jax.model.config import REMAT_POLICIES
from tests.model.attention.cases import assert_as_defined, attend, make_inputs, tpu_kernels

WIDTH = 64


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("clamp", [False, True])
@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_paired_heads_match_the_definition(dtype, rate, clamp):
    spec = AttentionSpec(WIDTH, rate, clamp)
    with pltpu.force_tpu_interpret_mode():
        assert_as_defined(paired_heads.BACKEND, make_inputs(spec, 128, 4, dtype), spec)


# In rows of 512 one hashed word decides for four elements at once; 384 is not a power of two. Queries are computed in
# blocks of 128 and of 256.
@pytest.mark.parametrize("length", [384, 512])
def test_longer_rows_match_the_definition(length, monkeypatch):
    monkeypatch.setattr(paired_heads, "QUERIES", 256)
    spec = AttentionSpec(WIDTH, 0.2, clamp=True)
    with pltpu.force_tpu_interpret_mode():
        assert_as_defined(paired_heads.BACKEND, make_inputs(spec, length, 2, "float32"), spec)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("width", [64, 128])
def test_rotary_positions(width, dtype):
    spec = AttentionSpec(width, 0.1)
    with pltpu.force_tpu_interpret_mode():
        assert_as_defined(paired_heads.BACKEND, make_inputs(spec, 128, 2, dtype, rotary=True), spec)


@pytest.mark.parametrize("width,clamp,rate", [(128, False, 0.1), (128, True, 0.0)])
def test_heads_that_fill_the_lanes(width, clamp, rate):
    spec = AttentionSpec(width, rate, clamp)
    with pltpu.force_tpu_interpret_mode():
        assert_as_defined(paired_heads.BACKEND, make_inputs(spec, 256, 1, "float32"), spec)


# Keys of a block begin at a multiple of 64. The smallest window has one token on each side; the last is wider than a
# row. Seeds decide for the same elements as in the whole matrix of scores.
@pytest.mark.parametrize("length,window,width", [(384, 128, 64), (384, 2, 128), (256, 400, 64)])
def test_windows(length, window, width):
    spec = AttentionSpec(width, 0.2, window=window)
    with pltpu.force_tpu_interpret_mode():
        assert_as_defined(paired_heads.BACKEND, make_inputs(spec, length, 2, "float32", rotary=True), spec)


def test_no_dropout_without_seeds():
    spec = AttentionSpec(WIDTH, 0.5)
    with pltpu.force_tpu_interpret_mode():
        assert_as_defined(paired_heads.BACKEND, make_inputs(spec, 128, 2, "float32")._replace(seeds=None), spec)


@pytest.mark.parametrize("rate,share", [(0.1, 26 / 256), (0.5, 0.5)])
def test_dropout_rate(rate, share):
    spec = AttentionSpec(WIDTH, rate)
    inputs = make_inputs(spec, 128, 4, "float32")
    # Zero queries weight all 128 keys equally, so each context is the kept share of them, scaled to average 1.
    query, key, value = inputs.projections
    inputs = AttentionInputs((jnp.zeros_like(query), key, jnp.ones_like(value)), jnp.ones_like(inputs.segments),
                             inputs.seeds)
    with pltpu.force_tpu_interpret_mode():
        context = np.asarray(attend(paired_heads.BACKEND, inputs, spec), np.float64)
    kept = context.reshape(3, 128, 4, WIDTH)[..., 0] * 128 * (1 - share)
    np.testing.assert_allclose(kept, np.round(kept), atol=1e-3)
    elements = 3 * 4 * 128 * 128
    assert abs(kept.sum() - elements * (1 - share)) < 4 * np.sqrt(elements * share * (1 - share))
    # Queries are independent, so the counts of kept keys are binomial.
    assert kept.var() == pytest.approx(128 * share * (1 - share), rel=0.15)


def test_remat_keeps_the_context_and_does_not_rerun_the_kernel():
    spec = AttentionSpec(WIDTH, 0.1)
    inputs = make_inputs(spec, 128, 2, "float32")

    def runs(policy: str) -> list[int]:
        layer = jax.checkpoint(lambda inputs: attend(paired_heads.BACKEND, inputs, spec), policy=REMAT_POLICIES[policy])
        gradient = jax.grad(lambda projections: jnp.sum(layer(inputs._replace(projections=projections))))
        program = str(jax.make_jaxpr(gradient)(inputs.projections))
        return [program.count(f"name=paired_attention_{name}") for name in ("forward", "backward")]

    assert runs("names") == [1, 1]
    assert runs("full") == [2, 1]


@pytest.mark.parametrize("length,width,window", [(128, 64, 0), (384, 64, 0), (512, 128, 0), (384, 64, 128),
                                                 (1024, 128, 128)])
def test_paired_heads_lower_for_tpus(length, width, window):
    spec = AttentionSpec(width, 0.1, clamp=not window, window=window)
    inputs = make_inputs(spec, length, 2, "bfloat16", rotary=bool(window))
    assert tpu_kernels(paired_heads.BACKEND, inputs, spec) == 2


def test_limits_of_paired_heads():
    spec = AttentionSpec(WIDTH, 0.1, clamp=True)
    for length in (128, 384, 512, 1024):
        for window in (0, 64):
            assert not paired_heads.limits(length, 12, spec._replace(window=window))
    assert not paired_heads.limits(128, 3, spec._replace(head_width=128))
    assert "a device has 3 heads 64 wide" in paired_heads.limits(128, 3, spec)
    assert "a device has 4 heads 32 wide" in paired_heads.limits(128, 4, spec._replace(head_width=32))
    for length in (48, 192, 1152):
        assert f"these have {length}" in paired_heads.limits(length, 12, spec)
