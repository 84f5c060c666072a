"""ModernBERT's encoder: packed texts, layers in a loop, sizes and operation counts. test_modernbert of interop compares
it with transformers."""
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from spanbert_jax.model import ComputeConfig, EncoderModel, EncoderOnly, make_head
from spanbert_jax.model.architectures.modernbert import ModernBertConfig

COMPUTE, ENCODER = ComputeConfig(dtype="float32"), EncoderOnly()


def make(head=ENCODER, compute=COMPUTE, **fields):
    config = ModernBertConfig(**dict(vocab_size=50, num_layers=4, width=16, num_heads=2, feed_forward=12,
                                     max_positions=16, window=4) | fields)
    model = EncoderModel(config, head, compute)
    params = nn.unbox(jax.jit(model.init)(jax.random.key(0), **model.dummy_inputs))["params"]
    return model, jax.tree.map(lambda leaf: 10 * leaf if leaf.ndim > 1 else leaf, params)  # far from linear


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_texts_of_a_packed_row_are_computed_as_alone(pooling):
    model, params = make(make_head("sequence_classification"), pooling=pooling)
    ids = np.random.default_rng(0).integers(1, 50, 20)
    lengths, first = (9, 4, 5), [0, 9, 13]
    segments = np.repeat([1, 2, 3, 0], [*lengths, 2])
    apply = jax.jit(model.apply)
    packed = apply({"params": params}, ids[None], segments[None], first=np.array([first]))
    for number, (start, length) in enumerate(zip(first, lengths)):
        alone = apply({"params": params}, np.pad(ids[start:start + length], (0, 12 - length))[None],
                      (np.arange(12) < length)[None].astype(int))
        np.testing.assert_allclose(packed.logits[0, number], alone.logits[0], atol=5e-5)
        np.testing.assert_allclose(packed.last_hidden_state[0, start:start + length],
                                   alone.last_hidden_state[0, :length], atol=5e-5)


def test_layers_in_a_loop_and_recomputed_compute_the_same():
    """Also with dropout: the layers are the first, two groups of two, and one more."""
    ids, key = np.random.default_rng(0).integers(1, 50, (2, 9)), jax.random.key(1)
    rates = dict(dropout=0.2, attention_dropout=0.2, feed_forward_dropout=0.2)
    found = []
    for compute in (COMPUTE, COMPUTE.replace(layers="scanned", remat="dots")):
        model, params = make(compute=compute, num_layers=6, global_every=2, **rates)

        def loss(params):
            return jnp.sum(model.apply({"params": params}, ids, deterministic=False,
                                       rngs={"dropout": key}).last_hidden_state ** 3)

        found.append(jax.jit(jax.value_and_grad(loss))(params))
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3), *found)


@pytest.mark.parametrize("size, published", [("base", 149e6), ("large", 395e6)])
def test_named_sizes_have_the_parameters_of_the_published_models(size, published):
    config = ModernBertConfig.named(size, vocab_size=50_432)  # without rows of padding
    model = EncoderModel(config, make_head("masked_lm"))
    shapes = nn.unbox(jax.eval_shape(lambda: model.init(jax.random.key(0), **model.dummy_inputs)))
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes)) - config.width  # the first layer's norm has no effect
    with torch.device("meta"):
        theirs = transformers.ModernBertForMaskedLM(transformers.ModernBertConfig(
            vocab_size=config.vocab_size, hidden_size=config.width, num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads, intermediate_size=config.feed_forward))
    assert count == sum(parameter.numel() for parameter in theirs.parameters())
    assert abs(count / published - 1) < 0.01


def test_operations_are_counted_layer_by_layer():
    for length, window in ((64, 128), (1024, 128), (1024, 129)):
        config = ModernBertConfig.named("base", vocab_size=100, window=window)
        total = 0
        for layer in range(22):
            keys = length if layer % 3 == 0 else min(length, 129)
            total += length * (3 * 768 * 768 + 768 * 768 + 2 * keys * 768 + 768 * 2304 + 1152 * 768)
        assert config.encoder_multiply_adds(length) == total


def test_initial_kernels_are_cut_off_and_smaller_before_residuals():
    """As transformers initializes them: deviation 0.02, of residual outputs 0.02 / sqrt(2 L), cut off at two."""
    _, params = make(width=64, num_heads=2, feed_forward=64)
    layers = params["encoder"]["layers"]
    for kernel, scale in ((layers["attention"]["query"], 1), (layers["feed_forward_out"], 8 ** -0.5)):
        drawn = np.asarray(kernel["kernel"]) / 10
        assert np.abs(drawn).max() <= 0.04 * scale * 1.001
        np.testing.assert_allclose(drawn.std(), 0.02 * scale * 0.88, rtol=0.05)  # of a normal cut off at two deviations
