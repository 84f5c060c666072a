"""Attention in blocks against the definition of attention."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spanbert_jax.model.attention import AttentionInputs, AttentionSpec, blockwise
from spanbert_jax.model.config import REMAT_POLICIES
from tests.model.attention.cases import assert_as_defined, attend, make_inputs


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks so small that short rows have several."""
    monkeypatch.setattr(blockwise, "QUERIES", 32)
    monkeypatch.setattr(blockwise, "KEYS", 16)
    monkeypatch.setattr(blockwise, "BAND_BLOCK", 8)
    monkeypatch.setattr(blockwise, "BAND_KEYS", 24)


# Lengths around whole blocks. Windows without a block inside, of one block of keys, of several, and beyond the row.
@pytest.mark.parametrize("length,window", [
    (12, 0), (16, 0), (50, 0), (64, 0), (50, 5), (64, 16), (49, 16), (33, 17), (50, 24), (64, 40), (50, 120)])
def test_blocks_match_the_definition(length, window):
    spec = AttentionSpec(8, 0.1, window=window)
    assert_as_defined(blockwise.BACKEND, make_inputs(spec, length, 3, "float32", rotary=window > 0), spec)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("window", [0, 8])
@pytest.mark.parametrize("rate,clamp", [(0.0, False), (0.2, True)])
def test_dtypes_and_clamping(dtype, window, rate, clamp):
    spec = AttentionSpec(8, rate, clamp, window)
    assert_as_defined(blockwise.BACKEND, make_inputs(spec, 50, 2, dtype), spec)


def test_segments_may_be_interrupted():
    spec = AttentionSpec(8, 0.1)
    inputs = make_inputs(spec, 50, 2, "float32")
    for segments in (np.arange(50) % 2, np.arange(50) % 3 + 1, np.arange(50) // 2 * 1000):
        assert_as_defined(blockwise.BACKEND, inputs._replace(segments=jnp.asarray([segments] * 3, jnp.int32)), spec)


def test_rows_are_cut_into_even_blocks():
    cuts = [blockwise._cut_row(length, 0) for length in (10, 32, 35, 68, 96)]
    assert [(cut.block, cut.blocks, cut.keys) for cut in cuts] == [
        (10, 1, 10), (32, 1, 16), (24, 2, 16), (24, 3, 16), (32, 3, 16)]


def test_only_blocks_with_a_common_segment_are_computed():
    # 32 queries and 16 keys: segments in positions 0-9, 10-29 and 30-69, then padding in 70-127.
    segments = jnp.repeat(jnp.asarray([1, 2, 3, 0]), jnp.asarray([10, 20, 40, 58]), total_repeat_length=128)
    first, end = blockwise._cut_row(128, 0).key_ranges(segments)
    np.testing.assert_array_equal(first[:3], [0, 1, 1])
    np.testing.assert_array_equal(end[:3], [5, 5, 5])
    assert end[3] <= first[3]
    # At most 12 positions away in a row of one segment; the window is too large for one block of keys.
    first, end = blockwise._cut_row(96, 24).key_ranges(jnp.ones(96, jnp.int32))
    np.testing.assert_array_equal(first, [0, 1, 3])
    np.testing.assert_array_equal(end, [3, 5, 6])


@pytest.mark.parametrize("window", [0, 16])
def test_memory_grows_with_the_length_and_not_with_its_square(window):
    def temporary_bytes(length: int) -> int:
        flat = jax.ShapeDtypeStruct((1, length, 16), jnp.float32)
        inputs = AttentionInputs((flat,) * 3, jax.ShapeDtypeStruct((1, length), jnp.uint8),
                                 jax.ShapeDtypeStruct((1, 2, 2), jnp.uint32))
        spec = AttentionSpec(8, 0.1, window=window)

        @jax.jit
        def gradients(inputs: AttentionInputs) -> tuple[jax.Array, ...]:
            return jax.grad(lambda flat: jnp.sum(attend(blockwise.BACKEND, inputs._replace(projections=flat), spec)))(
                inputs.projections)

        return gradients.lower(inputs).compile().memory_analysis().temp_size_in_bytes

    assert temporary_bytes(2048) < 2.1 * temporary_bytes(1024)


def test_remat_keeps_the_context_and_does_not_attend_again():
    spec = AttentionSpec(8)
    inputs = make_inputs(spec, 32, 2, "float32")

    def loops(policy: str) -> int:
        layer = jax.checkpoint(lambda inputs: attend(blockwise.BACKEND, inputs, spec), policy=REMAT_POLICIES[policy])
        gradient = jax.grad(lambda projections: jnp.sum(layer(inputs._replace(projections=projections))))
        return str(jax.make_jaxpr(gradient)(inputs.projections)).count("exp ")

    assert loops("names") < loops("full")
