"""Splash attention, interpreted on the CPU, against the definition of attention."""
import functools

import pytest
from jax.experimental.pallas import tpu as pltpu

from spanbert_jax.model.attention import AttentionSpec, paired_heads, splash
from tests.model.attention.cases import assert_as_defined, make_inputs, tpu_kernels


@pytest.fixture
def interpreted(monkeypatch):
    # TPU interpret mode does not support vmap over rows; interpret=True does.
    make = functools.partial(splash.kernels.make_splash_mha_single_device, interpret=True)
    monkeypatch.setattr(splash.kernels, "make_splash_mha_single_device", make)


# Rows of one block and of five blocks; 640 is not a multiple of the longest block.
@pytest.mark.parametrize("length,dtype,window,width", [
    (128, "float32", 0, 64), (128, "bfloat16", 0, 64), (640, "float32", 0, 64), (640, "float32", 128, 80),
    (128, "bfloat16", 33, 80)])
def test_splash_matches_the_definition(length, dtype, window, width, interpreted):
    spec = AttentionSpec(width, window=window)
    assert_as_defined(splash.BACKEND, make_inputs(spec, length, 2, dtype, rotary=window > 0), spec)


def test_rotary_positions(interpreted):
    spec = AttentionSpec(64)
    assert_as_defined(splash.BACKEND, make_inputs(spec, 128, 2, "float32", rotary=True), spec)


# The last of the pieces of 256 begins at 384, earlier than their distance of 224; a row of 128 is one piece.
@pytest.mark.parametrize("length,window", [(640, 33), (128, 64)])
def test_layers_with_a_window_are_computed_in_pieces(length, window, monkeypatch):
    monkeypatch.setattr(paired_heads, "LONGEST", 256)
    spec = AttentionSpec(64, window=window)
    with pltpu.force_tpu_interpret_mode():
        assert_as_defined(splash.BACKEND, make_inputs(spec, length, 2, "float32", rotary=True), spec)


# Without fusion the backward pass has two kernels.
@pytest.mark.parametrize("window,width,kernels", [(0, 64, 2), (128, 64, 2), (128, 80, 3)])
def test_splash_lowers_for_tpus(window, width, kernels):
    spec = AttentionSpec(width, window=window)
    assert tpu_kernels(splash.BACKEND, make_inputs(spec, 256, 2, "bfloat16"), spec) == kernels


def test_limits_of_splash():
    spec = AttentionSpec(80)
    for length in (128, 640, 4096):
        assert not splash.limits(length, 3, spec)
    assert "these have 576" in splash.limits(576, 3, spec)
    assert "attention_dropout is 0.1" in splash.limits(128, 3, spec._replace(dropout=0.1))
    assert "clamp_attention is True" in splash.limits(128, 3, spec._replace(clamp=True))
