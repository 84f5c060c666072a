"""Plain attention against its definition in NumPy."""
import numpy as np
import pytest

from spanbert_jax.model.attention import AttentionSpec, plain
from tests.model.attention.cases import assert_as_defined, by_definition, computed, gradient_above, make_inputs


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("clamp", [False, True])
@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_plain_attention_matches_its_definition(dtype, rate, clamp):
    spec = AttentionSpec(8, rate, clamp)
    assert_as_defined(plain.BACKEND, make_inputs(spec, 30, 3, dtype), spec)


# An odd window is cut to an even one. The last one is longer than a row.
@pytest.mark.parametrize("window", [3, 8, 80])
@pytest.mark.parametrize("rotary", [False, True])
def test_windows_and_rotary_positions_match_their_definition(window, rotary):
    spec = AttentionSpec(8, 0.1, window=window)
    assert_as_defined(plain.BACKEND, make_inputs(spec, 30, 3, "float32", rotary=rotary), spec)


def test_rotary_positions_in_bfloat16_are_computed_in_float32():
    spec = AttentionSpec(8)
    inputs = make_inputs(spec, 30, 3, "bfloat16", rotary=True)
    exact = inputs._replace(projections=tuple(flat.astype("float32") for flat in inputs.projections))
    for got, expected in zip(inputs.split_heads(8), exact.split_heads(8)):
        np.testing.assert_array_equal(got, expected.astype("bfloat16"))
    assert_as_defined(plain.BACKEND, inputs, spec)


def test_padding_attends_to_every_token():
    spec = AttentionSpec(8)
    inputs = make_inputs(spec, 30, 3, "float32")
    above = gradient_above(inputs)
    assert np.any(inputs.segments[0] == 0)
    for got, expected in zip(computed(plain.BACKEND, inputs, spec, above), by_definition(inputs, spec, above)):
        np.testing.assert_allclose(got[0], expected[0], atol=1e-5)


def test_clamping_changes_only_scores_beyond_the_limit():
    spec = AttentionSpec(8, clamp=True)
    inputs = make_inputs(spec, 30, 3, "float32")
    above = gradient_above(inputs)
    clipped, free = (computed(plain.BACKEND, inputs, spec, above)[0] for spec in (spec, spec._replace(clamp=False)))
    far = np.asarray(inputs.projections[0]).reshape(3, 30, 3, 8)[..., 0] != 0
    changed = np.any((clipped != free).reshape(far.shape + (8,)), axis=-1)
    assert changed[:2][far[:2]].all() and not changed[~far].any()
    # A query whose scores are all clamped to one side attends uniformly to its segment.
    mean = np.asarray(inputs.projections[2], np.float64)[1].mean(axis=0).reshape(3, 8)
    for position, head in np.argwhere(far[1]):
        np.testing.assert_allclose(clipped[1, position].reshape(3, 8)[head], mean[head], atol=1e-6)


def test_no_dropout_without_seeds():
    spec = AttentionSpec(8, 0.5)
    inputs = make_inputs(spec, 30, 3, "float32")._replace(seeds=None)
    assert_as_defined(plain.BACKEND, inputs, spec)
