"""Attention as its formula says it, against its definition in NumPy."""
import numpy as np
import pytest

from spanbert_jax.model.attention import plain
from spanbert_jax.model.attention.call import AttentionKind
from tests.model.attention.calls import assert_as_defined, by_definition, computed, gradient_above, make_call


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("clamp", [False, True])
@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_it_is_what_it_is_defined_to_be(dtype, rate, clamp):
    kind = AttentionKind(8, rate, clamp)
    assert_as_defined(plain, make_call(kind, 30, 3, dtype), kind)


def test_padding_looks_at_every_token():
    kind = AttentionKind(8)
    call = make_call(kind, 30, 3, "float32")
    above = gradient_above(call)
    assert np.any(call.segments[0] == 0)
    for got, expected in zip(computed(plain, call, kind, above), by_definition(call, kind, above)):
        np.testing.assert_allclose(got[0], expected[0], atol=1e-5)


def test_clipping_changes_what_exceeds_the_limit_and_nothing_else():
    kind = AttentionKind(8, clamp=True)
    call = make_call(kind, 30, 3, "float32")
    above = gradient_above(call)
    clipped, free = (computed(plain, call, kind, above)[0] for kind in (kind, kind._replace(clamp=False)))
    far = np.asarray(call.projections[0]).reshape(3, 30, 3, 8)[..., 0] != 0
    changed = np.any((clipped != free).reshape(far.shape + (8,)), axis=-1)
    assert changed[:2][far[:2]].all() and not changed[~far].any()
    # Where every score is clipped to one side, all of a segment count alike.
    mean = np.asarray(call.projections[2], np.float64)[1].mean(axis=0).reshape(3, 8)
    for position, head in np.argwhere(far[1]):
        np.testing.assert_allclose(clipped[1, position].reshape(3, 8)[head], mean[head], atol=1e-6)


def test_without_seeds_nothing_is_dropped():
    kind = AttentionKind(8, 0.5)
    call = make_call(kind, 30, 3, "float32")._replace(seeds=None)
    assert_as_defined(plain, call, kind)
