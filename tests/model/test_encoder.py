"""The stack of layers: scanning and recomputation do not change gradients."""
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spanbert_jax.model import BertConfig, ComputeConfig, PretrainingHeads, SpanBert
from spanbert_jax.model.config import REMAT_POLICIES

B, S, M, VOCABULARY = 4, 16, 3, 50
RANDOM = np.random.default_rng(0)
TOKENS = RANDOM.integers(0, VOCABULARY, (B, S))
SEGMENTS = np.array([[1] * 6 + [2] * 7 + [0] * 3] * B)
POSITIONS, PLACE = RANDOM.integers(0, S, (3, B, M)), RANDOM.integers(0, 5, (B, M))
ARGUMENTS = (TOKENS, SEGMENTS, 0 * TOKENS)
WHERE = dict(zip(("positions", "left", "right"), POSITIONS), place=PLACE)
KEY = jax.random.key(2)


def make_model(**compute) -> SpanBert:
    config = BertConfig(vocab_size=VOCABULARY, num_layers=2, width=16, num_heads=2, feed_forward=32, max_positions=S)
    return SpanBert(config, PretrainingHeads(boundary_features=8), ComputeConfig(dtype="float32", **compute))


@pytest.fixture(scope="module")
def params():
    """Parameters; they are the same for every layout."""
    noise = np.random.default_rng(1)
    shapes = nn.unbox(jax.eval_shape(
        lambda: make_model().init(jax.random.key(0), *ARGUMENTS, **WHERE, deterministic=True)))["params"]
    return jax.tree.map(lambda leaf: jnp.asarray(noise.normal(scale=0.3, size=leaf.shape), jnp.float32), shapes)


def loss_and_gradients(**compute):
    """Loss and gradients as a function of parameters and a key; with dropout, which recomputation must repeat."""
    def loss(params, key):
        logits = make_model(**compute).apply({"params": params}, *ARGUMENTS, **WHERE, deterministic=False,
                                         rngs={"dropout": key})
        return sum(jnp.mean(jnp.square(head[..., :VOCABULARY])) for head in (logits.masked, logits.boundary))

    return jax.jit(jax.value_and_grad(loss))


@pytest.fixture(scope="module")
def plain():
    return loss_and_gradients(layers="unrolled", remat="none")


@pytest.mark.parametrize("layers,remat", [("unrolled", "names"), *(("scanned", remat) for remat in REMAT_POLICIES)])
def test_every_layout_and_remat_policy_gives_the_same_gradients(params, plain, layers, remat):
    expected = plain(params, KEY)
    loss, gradients = loss_and_gradients(layers=layers, remat=remat)(params, KEY)
    assert loss == pytest.approx(float(expected[0]), rel=1e-6)
    jax.tree_util.tree_map_with_path(
        lambda path, got, right: np.testing.assert_allclose(
            got, right, atol=2e-6 * max(np.abs(right).max(), 1e-2), err_msg=jax.tree_util.keystr(path)),
        gradients, expected[1])


def test_dropout_depends_only_on_its_key(params, plain):
    losses = [float(plain(params, key)[0]) for key in (KEY, KEY, jax.random.key(3))]
    assert losses[0] == losses[1] != losses[2]
