"""The TPU kernel for pairs of heads, interpreted on the CPU, against the definition of attention."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from spanbert_jax.model.attention import paired_heads
from spanbert_jax.model.attention.call import AttentionCall, AttentionKind
from spanbert_jax.model.encoder import REMAT
from tests.model.attention.calls import assert_as_defined, attend, make_call, tpu_kernels

WIDTH = paired_heads.HEAD_WIDTH


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("clamp", [False, True])
@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_it_is_what_attention_is_defined_to_be(dtype, rate, clamp):
    kind = AttentionKind(WIDTH, rate, clamp)
    with pltpu.force_tpu_interpret_mode():
        assert_as_defined(paired_heads, make_call(kind, 128, 4, dtype), kind)


# In rows of 512 a word of the dropout decides for four elements at once; 384 is no power of two.
@pytest.mark.parametrize("length", [384, 512])
def test_longer_rows(length):
    kind = AttentionKind(WIDTH, 0.2, clamp=True)
    with pltpu.force_tpu_interpret_mode():
        assert_as_defined(paired_heads, make_call(kind, length, 2, "float32"), kind)


def test_without_seeds_nothing_is_dropped():
    kind = AttentionKind(WIDTH, 0.5)
    with pltpu.force_tpu_interpret_mode():
        assert_as_defined(paired_heads, make_call(kind, 128, 2, "float32")._replace(seeds=None), kind)


@pytest.mark.parametrize("rate,share", [(0.1, 26 / 256), (0.5, 0.5)])
def test_it_drops_the_share_that_it_is_told(rate, share):
    kind = AttentionKind(WIDTH, rate)
    call = make_call(kind, 128, 4, "float32")
    # Each of a row's 128 keys counts alike, and each context is the share of them that is kept, scaled to average 1.
    query, key, value = call.projections
    call = AttentionCall((jnp.zeros_like(query), key, jnp.ones_like(value)), jnp.ones_like(call.segments), call.seeds)
    with pltpu.force_tpu_interpret_mode():
        context = np.asarray(attend(paired_heads, call, kind), np.float64)
    kept = context.reshape(3, 128, 4, WIDTH)[..., 0] * 128 * (1 - share)
    np.testing.assert_allclose(kept, np.round(kept), atol=1e-3)
    elements = 3 * 4 * 128 * 128
    assert abs(kept.sum() - elements * (1 - share)) < 4 * np.sqrt(elements * share * (1 - share))
    # Rows of queries are independent: their counts vary as binomial ones do.
    assert kept.var() == pytest.approx(128 * share * (1 - share), rel=0.15)


def test_recomputation_keeps_the_context_and_does_not_run_the_kernel_again():
    kind = AttentionKind(WIDTH, 0.1)
    call = make_call(kind, 128, 2, "float32")

    def runs(policy: str) -> list[int]:
        layer = jax.checkpoint(lambda call: attend(paired_heads, call, kind), policy=REMAT[policy])
        gradient = jax.grad(lambda projections: jnp.sum(layer(call._replace(projections=projections))))
        program = str(jax.make_jaxpr(gradient)(call.projections))
        return [program.count(f"name=paired_attention_{name}") for name in ("forward", "backward")]

    assert runs("names") == [1, 1]
    assert runs("full") == [2, 1]


@pytest.mark.parametrize("length", [128, 384, 512])
def test_a_tpu_can_be_given_it(length):
    kind = AttentionKind(WIDTH, 0.1, clamp=True)
    assert tpu_kernels(paired_heads, make_call(kind, length, 2, "bfloat16"), kind) == 2


def test_what_it_cannot_compute():
    kind = AttentionKind(WIDTH, 0.1, clamp=True)
    for length in (128, 256, 384, 512):
        assert not paired_heads.unsupported_reason(length, 12, kind)
    assert "a device has 3 heads 64 wide" in paired_heads.unsupported_reason(128, 3, kind)
    assert "a device has 4 heads 32 wide" in paired_heads.unsupported_reason(128, 4, kind._replace(head_width=32))
    for length in (48, 192, 640):
        assert f"these have {length}" in paired_heads.unsupported_reason(length, 12, kind)
