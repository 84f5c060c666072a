"""Selection of the attention backend: never one that changes the result."""
import itertools

import jax.export
import pytest

from spanbert_jax.model.architectures.modernbert import ModernBertConfig
from spanbert_jax.model.attention import BACKENDS, AttentionSpec, cudnn, get_backend, select_backend

LENGTHS, HEADS, WIDTHS = (47, 48, 512, 576, 1024), (1, 12), (32, 64, 80)


@pytest.mark.parametrize("platform,length,heads,spec,dtype,chosen", [
    ("tpu", 128, 12, AttentionSpec(64, 0.1), "bfloat16", "paired_heads"),
    ("tpu", 512, 16, AttentionSpec(64, 0.1, clamp=True), "bfloat16", "paired_heads"),
    ("tpu", 1024, 6, AttentionSpec(128, 0.1, window=128), "bfloat16", "paired_heads"),
    ("tpu", 2048, 12, AttentionSpec(64), "bfloat16", "splash"),
    ("tpu", 512, 3, AttentionSpec(64), "bfloat16", "splash"),
    ("tpu", 1152, 12, AttentionSpec(64, 0.1), "bfloat16", "plain"),
    ("tpu", 512, 12, AttentionSpec(64), "float32", "plain"),
    ("gpu", 512, 12, AttentionSpec(64), "bfloat16", "cudnn"),
    ("gpu", 512, 12, AttentionSpec(64, 0.1), "bfloat16", "plain"),
    ("gpu", 512, 12, AttentionSpec(64), "float32", "plain"),
    ("gpu", 8192, 12, AttentionSpec(64, 0.1), "bfloat16", "blockwise"),
    ("tpu", 8192, 12, AttentionSpec(64, 0.1), "float32", "blockwise"),
    ("cpu", 512, 12, AttentionSpec(64), "bfloat16", "plain"),
    ("cpu", 513, 12, AttentionSpec(7, 0.3, clamp=True, window=9), "float32", "blockwise")])
def test_the_fastest_supported_backend_is_selected(platform, length, heads, spec, dtype, chosen):
    assert select_backend(platform, length, heads, [spec], dtype) == chosen


def test_the_backend_supports_the_layers_of_all_kinds():
    config = ModernBertConfig.named("base", vocab_size=1)
    full, local = config.attention_specs
    assert {full.window, local.window} == {0, 128}
    assert select_backend("tpu", 512, 12, [AttentionSpec(64)], "bfloat16") == "paired_heads"
    chosen = BACKENDS.get(select_backend("tpu", 512, 12, config.attention_specs, "bfloat16"))
    assert not chosen.limits(512, 12, full) and not chosen.limits(512, 12, local)


def test_selection_never_changes_the_result():
    for platform, dtype, length, heads, width, rate, clamp in itertools.product(
            ("cpu", "gpu", "tpu", "rocm"), ("float32", "bfloat16"), LENGTHS, HEADS, WIDTHS, (0.0, 0.1), (False, True)):
        chosen = select_backend(platform, length, heads, [AttentionSpec(width, rate, clamp)], dtype)
        if chosen not in ("plain", "blockwise"):
            assert dtype == "bfloat16"
            assert platform == {"paired_heads": "tpu", "splash": "tpu", "cudnn": "gpu"}[chosen]
            assert chosen == "paired_heads" or (not rate and not clamp)


@pytest.mark.parametrize("name", ["plain", "blockwise"])
def test_some_backends_support_everything(name):
    spec = AttentionSpec(7, 0.3, clamp=True, window=9)
    assert not BACKENDS.get(name).unsupported_reason("cpu", 47, 1, [spec], "float32")


def test_where_nothing_is_selected_beforehand_the_length_decides():
    batch, = jax.export.symbolic_shape("batch")
    for length, chosen in ((0, "plain"), (128, "plain"), (1024, "blockwise"), (batch, "plain")):
        assert get_backend("auto", length).name == chosen
    assert get_backend("plain", 1024).name == "plain"


@pytest.mark.parametrize("name", ["paired_heads", "splash", "cudnn"])
def test_kernels_support_one_platform_and_dtype(name):
    right, wrong = ("GPU", "tpu") if name == "cudnn" else ("TPU", "gpu")
    assert not BACKENDS.get(name).unsupported_reason(right.lower(), 128, 2, [AttentionSpec(64)], "bfloat16")
    assert BACKENDS.get(name).unsupported_reason(wrong, 128, 2, [AttentionSpec(64)], "bfloat16") == (
        f"it is for {right}s, and these devices are {wrong.upper()}s")
    reason = BACKENDS.get(name).unsupported_reason(right.lower(), 128, 2, [AttentionSpec(64)], "float32")
    assert "compute.dtype is 'float32'" in reason


def test_limits_of_cudnn():
    spec = AttentionSpec(64)
    assert not cudnn.limits(510, 3, spec)
    assert "attention_dropout is 0.1" in cudnn.limits(512, 3, spec._replace(dropout=0.1))
    assert "clamp_attention is True" in cudnn.limits(512, 3, spec._replace(clamp=True))
    for width in (20, 256):
        assert f"these are {width} wide" in cudnn.limits(512, 3, spec._replace(head_width=width))
    assert "these have 47 positions" in cudnn.limits(47, 3, spec)
