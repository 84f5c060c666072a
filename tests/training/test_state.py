"""How checkpoints name the leaves of a train state."""
import jax
import jax.numpy as jnp
import numpy as np
import optax

from spanbert_jax.checkpoints import Checkpointer
from spanbert_jax.checkpoints.fingerprint import array_name
from spanbert_jax.model import BertConfig, SpanBert
from spanbert_jax.training.mesh import make_mesh
from spanbert_jax.training.skipping import WINDOW, UpdateHistory
from spanbert_jax.training.state import TrainState, abstract_train_state, create_state, from_stored, to_stored
from tests.training.small import small_config

# The names that every checkpoint of a run has had; a new name here would make older workdirs unreadable.
HISTORY = {"recent/losses", "recent/gradient_norms", "recent/made", "recent/left_out", "recent/in_a_row"}


def test_a_checkpoint_with_the_stored_names_is_restored(tmp_path):
    mesh = make_mesh(small_config().mesh, jax.devices()[:1])
    model, optimizer = SpanBert(BertConfig.named("tiny", vocab_size=300)), optax.sgd(0.1)
    abstract = abstract_train_state(model, optimizer, mesh, small_config().mesh.rules)
    state = create_state(model, optimizer, abstract, 0)
    window = jnp.arange(WINDOW, dtype=jnp.float32)
    # Written out, as older versions saved it.
    stored = {"step": jnp.int32(7), "params": state.params, "opt_state": state.opt_state,
              "recent": {"losses": window, "gradient_norms": window + 1, "made": jnp.int32(5),
                         "left_out": jnp.int32(2), "in_a_row": jnp.int32(1)}}
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save_and_wait(7, stored, {})
        step, restored = checkpointer.resume(to_stored(abstract), lambda step, metadata: None)
    history = UpdateHistory(losses=window, gradient_norms=window + 1, applied=5, skipped=2, consecutive_skips=1)
    assert step == 7
    jax.tree.map(np.testing.assert_array_equal, from_stored(restored),
                 TrainState(jnp.int32(7), state.params, state.opt_state, history))


def test_a_state_is_stored_under_the_same_names_as_before():
    state = TrainState(0, {"encoder": 1}, (2,), UpdateHistory(3, 4, 5, 6, 7))
    leaves, _ = jax.tree_util.tree_flatten_with_path(to_stored(state))
    assert {array_name(path) for path, _ in leaves} == {"step", "params/encoder", "opt_state/0", *HISTORY}
    assert from_stored(to_stored(state)) == state
