"""Which way of computing attention is taken: never one that changes the result."""
import itertools

import pytest

from spanbert_jax.model.attention import KINDS, choose, cudnn, unsupported_reason
from spanbert_jax.model.attention.call import AttentionKind

LENGTHS, HEADS, WIDTHS = (47, 48, 128, 512, 576, 640, 1024), (1, 2, 12), (32, 64, 80, 256)


@pytest.mark.parametrize("platform,length,heads,kind,dtype,chosen", [
    ("tpu", 128, 12, AttentionKind(64, 0.1), "bfloat16", "paired_heads"),
    ("tpu", 512, 16, AttentionKind(64, 0.1, clamp=True), "bfloat16", "paired_heads"),
    ("tpu", 1024, 12, AttentionKind(64), "bfloat16", "splash"),
    ("tpu", 512, 3, AttentionKind(64), "bfloat16", "splash"),
    ("tpu", 1024, 12, AttentionKind(64, 0.1), "bfloat16", "plain"),
    ("tpu", 512, 12, AttentionKind(64), "float32", "plain"),
    ("gpu", 512, 12, AttentionKind(64), "bfloat16", "cudnn"),
    ("gpu", 512, 12, AttentionKind(64, 0.1), "bfloat16", "plain"),
    ("gpu", 512, 12, AttentionKind(64), "float32", "plain"),
    ("cpu", 512, 12, AttentionKind(64), "bfloat16", "plain")])
def test_the_fastest_that_can_is_chosen(platform, length, heads, kind, dtype, chosen):
    assert choose(platform, length, heads, kind, dtype) == chosen


def test_no_choice_changes_what_is_computed():
    for platform, dtype, length, heads, width, rate, clamp in itertools.product(
            ("cpu", "gpu", "tpu", "rocm"), ("float32", "bfloat16"), LENGTHS, HEADS, WIDTHS, (0.0, 0.1), (False, True)):
        chosen = choose(platform, length, heads, AttentionKind(width, rate, clamp), dtype)
        assert chosen == "plain" or dtype == "bfloat16"
        assert chosen == "plain" or platform == {"paired_heads": "tpu", "splash": "tpu", "cudnn": "gpu"}[chosen]
        assert chosen in ("plain", "paired_heads") or not rate and not clamp


def test_plain_attention_can_compute_everything():
    assert not unsupported_reason("plain", "cpu", 47, 1, AttentionKind(7, 0.3, clamp=True), "float32")


@pytest.mark.parametrize("name", [name for name in KINDS if name != "plain"])
def test_kernels_are_for_one_platform_and_type(name):
    right, wrong = ("GPU", "tpu") if name == "cudnn" else ("TPU", "gpu")
    assert not unsupported_reason(name, right.lower(), 128, 2, AttentionKind(64), "bfloat16")
    assert unsupported_reason(name, wrong, 128, 2, AttentionKind(64), "bfloat16") == (
        f"it is for {right}s, and these devices are {wrong.upper()}s")
    assert "model.dtype is 'float32'" in unsupported_reason(name, right.lower(), 128, 2, AttentionKind(64), "float32")


def test_what_cudnn_cannot_compute():
    kind = AttentionKind(64)
    assert not cudnn.unsupported_reason(510, 3, kind)
    assert "attention_dropout is 0.1" in cudnn.unsupported_reason(512, 3, kind._replace(dropout=0.1))
    assert "clamp_attention is True" in cudnn.unsupported_reason(512, 3, kind._replace(clamp=True))
    for width in (20, 256):
        assert f"these are {width} wide" in cudnn.unsupported_reason(512, 3, kind._replace(head_width=width))
    assert "these have 47 positions" in cudnn.unsupported_reason(47, 3, kind)
