"""A model of the published size is trained for a step, saved and restored."""
import dataclasses

import jax
import numpy as np

from spanbert_jax.checkpoints import Checkpointer
from tests.training.small import Trainer, small_config


def test_a_base_size_model_is_trained_saved_and_restored(tmp_path):
    config = small_config(dropout=0.0)
    config.model.update(dict(size="base", width=0, num_heads=0, feed_forward=0))
    # The published count (section 4.2's base has 110M): every kernel of 12 layers of 768.
    layer = 4 * (768 * 768 + 768) + 2 * 768 * 3072 + 3072 + 768 + 4 * 768
    assert layer_parameters(Trainer(config).abstract_state) == 12 * layer
    config.model.num_layers = 2  # as wide, in a sixth of the time
    trainer = Trainer(config)
    state, [metrics] = trainer.run(trainer.fresh(), range(1), rows=2)
    assert layer_parameters(state) == 2 * layer
    assert np.isfinite(metrics["loss"])
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, state, {"config": config.to_dict()})
        checkpointer.wait()
        step, restored = checkpointer.resume(trainer.abstract_state, lambda step, metadata: None)
        params = checkpointer.restore_params(1, trainer.abstract_state.params)
    assert step == 1
    for field in dataclasses.fields(state):
        jax.tree.map(np.testing.assert_array_equal, getattr(restored, field.name), getattr(state, field.name))
    jax.tree.map(np.testing.assert_array_equal, params, state.params)


def layer_parameters(state):
    return sum(leaf.size for leaf in jax.tree.leaves(state.params["encoder"]["layers"]))
