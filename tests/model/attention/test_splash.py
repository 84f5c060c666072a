"""Splash attention, interpreted on the CPU, against the definition of attention."""
import functools

import pytest

from spanbert_jax.model.attention import AttentionSpec, splash
from tests.model.attention.cases import assert_as_defined, make_inputs, tpu_kernels


# Rows of one block and of five blocks; 640 is not a multiple of the longest block.
@pytest.mark.parametrize("length,dtype,window", [
    (128, "float32", 0), (128, "bfloat16", 0), (640, "float32", 0), (640, "float32", 128), (128, "bfloat16", 33)])
def test_splash_matches_the_definition(length, dtype, window, monkeypatch):
    # TPU interpret mode does not support vmap over rows; interpret=True does.
    make = functools.partial(splash.kernels.make_splash_mha_single_device, interpret=True)
    monkeypatch.setattr(splash.kernels, "make_splash_mha_single_device", make)
    spec = AttentionSpec(64, window=window)
    assert_as_defined(splash.BACKEND, make_inputs(spec, length, 2, dtype, rotary=window > 0), spec)


@pytest.mark.parametrize("window", [0, 128])
def test_splash_lowers_for_tpus(window):
    spec = AttentionSpec(64, window=window)
    assert tpu_kernels(splash.BACKEND, make_inputs(spec, 256, 2, "bfloat16"), spec) == 2


def test_limits_of_splash():
    spec = AttentionSpec(80)
    for length in (128, 640, 4096):
        assert not splash.limits(length, 3, spec)
    assert "these have 576" in splash.limits(576, 3, spec)
    assert "attention_dropout is 0.1" in splash.limits(128, 3, spec._replace(dropout=0.1))
    assert "clamp_attention is True" in splash.limits(128, 3, spec._replace(clamp=True))
