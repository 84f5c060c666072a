"""The array shapes and dtypes in the signatures of the model package, checked while models are traced."""
import subprocess
import sys

from tests.runs import ROOT

# In a process of its own, since the hook has to be there before the package is imported.
_PROGRAM = """
import jaxtyping

with jaxtyping.install_import_hook("spanbert_jax.model", "beartype.beartype"):
    import spanbert_jax.model.encoder_model
import jax
import jax.numpy as jnp
import pytest
from spanbert_jax.model import *
from spanbert_jax.model.architectures.gpt2 import Gpt2Config
from spanbert_jax.model.heads import gather

B, S, T, M, K = 2, 12, 7, 3, 4
bert = BertConfig(vocab_size=60, num_layers=1, width=16, num_heads=2, feed_forward=24, max_positions=S)
gpt2 = Gpt2Config(vocab_size=50, num_layers=1, width=24, num_heads=2, feed_forward=20, max_positions=S)


def trace(model, *inputs, backward=True, **fields):
    def loss(params):
        outputs = model.apply({"params": params}, *inputs, **fields, deterministic=False,
                              rngs={"dropout": jax.random.key(1)})
        return sum(jnp.sum(leaf.astype(jnp.float32)) for leaf in jax.tree.leaves(outputs))

    params = jax.eval_shape(lambda: model.init(jax.random.key(0), **model.dummy_inputs)["params"])
    jax.eval_shape(jax.grad(loss) if backward else loss, params)


ids, segments = jnp.ones((B, S), jnp.int32), jnp.ones((B, S), jnp.uint8)
masked, targets = jnp.ones((B, M), jnp.int32), jnp.ones((B, T), jnp.int32)
model = SpanBert(bert, PretrainingHeads(next_sentence=True), ComputeConfig(layers="scanned", remat="names"))
trace(model, ids, segments, segments, positions=masked, left=masked, right=masked, place=masked)
for name in head_names():
    for first in (None, jnp.zeros((B, K), jnp.int32)):
        trace(EncoderModel(bert, make_head(name)), ids, segments, ids, first=first, backward=False)
for decoder in (bert, gpt2):
    trace(EncoderDecoder(bert, decoder), ids, segments, targets, targets)
for wrong in (jnp.ones((B, M, 1), jnp.int32), jnp.ones((B, M)), jnp.ones((B + 1, M), jnp.int32)):
    with pytest.raises(jaxtyping.TypeCheckError):
        gather(jnp.ones((B, S, 16)), wrong)
"""


def test_signatures_have_the_shapes_of_the_arrays():
    done = subprocess.run([sys.executable, "-c", _PROGRAM], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
