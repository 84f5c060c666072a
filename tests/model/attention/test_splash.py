"""JAX's kernel for long rows, interpreted on the CPU, against the definition of attention."""
import functools

import pytest

from spanbert_jax.model.attention import splash
from spanbert_jax.model.attention.call import AttentionKind
from tests.model.attention.calls import assert_as_defined, make_call, tpu_kernels


# A row of one block, and one of five: 640 is no multiple of the longest block.
@pytest.mark.parametrize("length,dtype", [(128, "float32"), (128, "bfloat16"), (640, "float32")])
def test_it_is_what_attention_is_defined_to_be(length, dtype, monkeypatch):
    # Mapped over rows it cannot be interpreted as a program of a TPU, but as one of its arrays.
    make = functools.partial(splash.kernels.make_splash_mha_single_device, interpret=True)
    monkeypatch.setattr(splash.kernels, "make_splash_mha_single_device", make)
    kind = AttentionKind(64)
    assert_as_defined(splash, make_call(kind, length, 2, dtype), kind)


def test_a_tpu_can_be_given_it():
    kind = AttentionKind(64)
    assert tpu_kernels(splash, make_call(kind, 256, 2, "bfloat16"), kind) == 2


def test_what_it_cannot_compute():
    kind = AttentionKind(80)
    for length in (128, 640, 4096):
        assert not splash.unsupported_reason(length, 3, kind)
    assert "these have 576" in splash.unsupported_reason(576, 3, kind)
    assert "attention_dropout is 0.1" in splash.unsupported_reason(128, 3, kind._replace(dropout=0.1))
    assert "clamp_attention is True" in splash.unsupported_reason(128, 3, kind._replace(clamp=True))
