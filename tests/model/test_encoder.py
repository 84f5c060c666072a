"""The stack of layers: its layout and what it recomputes change nothing of what it computes."""
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spanbert_jax.model import ModelConfig, SpanBert
from spanbert_jax.model.compute import REMAT_POLICIES

B, S, M, VOCABULARY = 4, 16, 3, 50
RANDOM = np.random.default_rng(0)
TOKENS = RANDOM.integers(0, VOCABULARY, (B, S))
SEGMENTS = np.array([[1] * 6 + [2] * 7 + [0] * 3] * B)
POSITIONS, PLACE = RANDOM.integers(0, S, (3, B, M)), RANDOM.integers(0, 5, (B, M))
ARGUMENTS = (TOKENS, SEGMENTS, 0 * TOKENS)
WHERE = dict(zip(("positions", "left", "right"), POSITIONS), place=PLACE)
KEY = jax.random.key(2)


def network(**fields) -> SpanBert:
    return SpanBert(ModelConfig(
        vocab_size=VOCABULARY, num_layers=2, width=16, num_heads=2, feed_forward=32, max_positions=S,
        boundary_features=8, dtype="float32", **fields))


@pytest.fixture(scope="module")
def params():
    """Parameters, of whatever layout."""
    noise = np.random.default_rng(1)
    shapes = nn.unbox(jax.eval_shape(
        lambda: network().init(jax.random.key(0), *ARGUMENTS, **WHERE, deterministic=True)))["params"]
    return jax.tree.map(lambda leaf: jnp.asarray(noise.normal(scale=0.3, size=leaf.shape), jnp.float32), shapes)


def loss_and_gradients(**fields):
    """The function of parameters and a key; with dropout, since a layer computed again is to drop the same again."""
    def loss(params, key):
        logits = network(**fields).apply({"params": params}, *ARGUMENTS, **WHERE, deterministic=False,
                                         rngs={"dropout": key})
        return sum(jnp.mean(jnp.square(head[..., :VOCABULARY])) for head in (logits.masked, logits.boundary))

    return jax.jit(jax.value_and_grad(loss))


@pytest.fixture(scope="module")
def plain():
    return loss_and_gradients(layers="unrolled", remat="none")


@pytest.mark.parametrize("layers,remat", [
    case for case in itertools.product(("unrolled", "scanned"), REMAT_POLICIES) if case != ("unrolled", "none")])
def test_every_layout_and_recomputation_gives_the_same_gradients(params, plain, layers, remat):
    expected = plain(params, KEY)
    loss, gradients = loss_and_gradients(layers=layers, remat=remat)(params, KEY)
    assert loss == pytest.approx(float(expected[0]), rel=1e-6)
    jax.tree_util.tree_map_with_path(
        lambda path, got, right: np.testing.assert_allclose(
            got, right, atol=2e-6 * max(np.abs(right).max(), 1e-2), err_msg=jax.tree_util.keystr(path)),
        gradients, expected[1])


def test_dropout_is_that_of_its_key(params, plain):
    losses = [float(plain(params, key)[0]) for key in (KEY, KEY, jax.random.key(3))]
    assert losses[0] == losses[1] != losses[2]
