"""cuDNN's attention, with JAX's own implementation in its place, against the definition of attention."""
import jax
import pytest

from spanbert_jax.model.attention import AttentionSpec, cudnn
from tests.model.attention.cases import assert_as_defined, make_inputs


# Windows in blocks, in a row that a block does not divide, and one that is too large for blocks.
@pytest.mark.parametrize("length,window", [(30, 0), (30, 6), (32, 9), (30, 40)])
def test_blocks_with_a_window_match_the_definition(length, window, monkeypatch):
    attend = jax.nn.dot_product_attention
    monkeypatch.setattr(jax.nn, "dot_product_attention", lambda *arrays, mask, implementation: attend(
        *arrays, mask=mask, implementation={"cudnn": "xla"}[implementation]))
    monkeypatch.setattr(cudnn, "BLOCK", 8)
    spec = AttentionSpec(8, window=window)
    assert_as_defined(cudnn.BACKEND, make_inputs(spec, length, 2, "float32", rotary=True), spec)
