"""Decoders against those of transformers; incremental decoding; packed texts; decoders shared with the encoder."""
import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spanbert_jax.generation.incremental import IncrementalDecoder, unstack_layers
from spanbert_jax.interop.encoder_decoder import load_encoder_decoder
from spanbert_jax.model import BertConfig, ComputeConfig, EncoderDecoder, merge_tied_params, split_tied_params
from tests.transformers_pairs import KINDS, SOURCE_PIECES, TARGET_PIECES, save_pair, torch

LENGTHS = np.array([11, 7, 3, 9, 1])


def inputs(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sources [5, 11], their attention mask, and targets [5, 9]."""
    random = np.random.default_rng(seed)
    return (random.integers(3, SOURCE_PIECES, (5, 11)), (np.arange(11) < LENGTHS[:, None]).astype(np.int64),
            random.integers(3, TARGET_PIECES, (5, 9)))


def run(model, params, tokens, real, targets):
    return jax.jit(model.apply)({"params": params}, tokens, real, targets, np.ones_like(targets))


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: "-".join(map(str, kind)))
def pair(request, tmp_path_factory):
    """transformers' model, ours, and its parameters."""
    theirs, folder = save_pair(tmp_path_factory.mktemp("pair") / "network", *request.param)
    return theirs, *load_encoder_decoder(folder)


def test_logits_equal_those_of_transformers(pair):
    theirs, model, params = pair
    tokens, real, targets = inputs()
    with torch.no_grad():
        expected = theirs(input_ids=torch.tensor(tokens), attention_mask=torch.tensor(real),
                          decoder_input_ids=torch.tensor(targets)).logits.numpy()
    found = run(model, params, tokens, real, targets)
    assert found.shape == expected.shape == (5, 9, TARGET_PIECES)
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


def test_one_position_at_a_time_gives_the_same_logits(pair):
    _, model, params = pair
    tokens, real, targets = inputs(1)
    expected = run(model, params, tokens, real, targets)
    decoder = IncrementalDecoder(model, unstack_layers(params))
    written = jax.jit(lambda tokens, real: decoder.start(tokens, real, 1, 9))(tokens, real)
    advance = jax.jit(lambda *args: IncrementalDecoder(model, unstack_layers(params)).step(*args))
    for step in range(9):
        logits, written = advance(written, targets[:, step:step + 1], jnp.int32(step))
        np.testing.assert_allclose(logits[:, 0], expected[:, step], atol=1e-5)


def test_packed_texts_attend_only_to_their_own_sources(pair):
    _, model, params = pair
    tokens, real, targets = inputs(2)
    sizes = [9, 4, 6, 1, 5]
    alone = run(model, params, tokens, real, targets)
    packed, segments, written, numbers = [], [], [], []
    for text in range(5):
        packed += tokens[text, :LENGTHS[text]].tolist()
        segments += [text + 1] * LENGTHS[text]
        written += targets[text, :sizes[text]].tolist()
        numbers += [text + 1] * sizes[text]
    row = [np.pad(np.array(values), (0, more))[None] for values, more in
           ((packed, 3), (segments, 3), (written, 5), (numbers, 5))]
    together = np.asarray(jax.jit(model.apply)({"params": params}, *row))
    start = 0
    for text in range(5):
        np.testing.assert_allclose(together[0, start:start + sizes[text]], alone[text, :sizes[text]], atol=1e-5)
        start += sizes[text]
    assert np.isfinite(together).all()


def make_shared() -> tuple[EncoderDecoder, dict]:
    config = BertConfig(SOURCE_PIECES, num_layers=2, width=32, num_heads=4, feed_forward=64, max_positions=64)
    model = EncoderDecoder(config, config, shared=True, compute=ComputeConfig(dtype="float32"))
    return model, nn.unbox(jax.jit(lambda key: model.init(key, **model.dummy_inputs))(jax.random.key(0))["params"])


def test_a_shared_decoder_is_stored_once_and_trained_with_the_encoder():
    model, whole = make_shared()
    stored = split_tied_params(whole)
    layers = stored["decoder"]["layers"]
    assert set(layers) == {"memory_attention", "memory_attention_norm"} and "embeddings" not in stored["decoder"]
    filled = merge_tied_params(stored)
    assert jax.tree.structure(filled) == jax.tree.structure(whole)
    assert filled["decoder"]["layers"]["attention"] is stored["encoder"]["layers"]["attention"]
    tokens, real, targets = inputs(3)

    def loss(params, model):
        return jnp.sum(jnp.sin(run(model, params, tokens, real, targets)))

    # The gradient of a shared parameter is the sum of the gradients of two copies.
    apart = jax.jit(jax.grad(functools.partial(loss, model=dataclasses.replace(model, shared=False))))(filled)
    together = jax.jit(jax.grad(lambda params: loss(merge_tied_params(params), model)))(stored)
    for name in ("attention", "feed_forward_in"):
        jax.tree.map(lambda both, first, second: np.testing.assert_allclose(both, first + second, rtol=1e-3, atol=1e-5),
                     together["encoder"]["layers"][name], apart["encoder"]["layers"][name],
                     apart["decoder"]["layers"][name])


def test_dropout_depends_only_on_its_key():
    model, params = make_shared()
    tokens, real, targets = inputs(4)
    apply = jax.jit(lambda key: model.apply({"params": params}, tokens, real, targets, np.ones_like(targets),
                                            deterministic=False, rngs={"dropout": key}))
    results = [apply(jax.random.key(seed)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(results[0], results[1])
    assert np.abs(results[0] - results[2]).max() > 1e-3
