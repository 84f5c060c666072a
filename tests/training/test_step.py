import jax
import numpy as np
import pytest

from spanbert_jax.errors import UserError
from spanbert_jax.training.mesh import make_mesh
from tests.training.small import Trainer, losses, make_rows, small_config


@pytest.fixture(scope="module")
def single():
    """Losses of 20 steps on one device."""
    trainer = Trainer(small_config())
    return losses(trainer.run(trainer.fresh(), range(20))[1])


@pytest.mark.parametrize("data,fsdp,tensor", [(2, 1, 1), (4, 1, 1), (8, 1, 1), (1, 4, 1), (1, 1, 2), (2, 2, 2)])
def test_every_mesh_gives_the_same_losses(single, data, fsdp, tensor):
    config = small_config()
    config.mesh.update(dict(data=data, fsdp=fsdp, tensor=tensor))
    trainer = Trainer(config, data * fsdp * tensor)
    _, metrics = trainer.run(trainer.fresh(), range(20))
    np.testing.assert_allclose(losses(metrics), single, rtol=1e-5)


def test_losses_fall_when_rows_repeat():
    trainer = Trainer(small_config())
    state = trainer.fresh()
    first = last = None
    for _ in range(30):
        state, [metrics] = trainer.run(state, range(1))
        first, last = first or metrics["masked_loss"], metrics["masked_loss"]
    assert last < first - 0.5


@pytest.mark.parametrize("accumulation", [2, 8])
def test_accumulation_gives_the_loss_and_norm_of_the_whole_batch(accumulation):
    config = small_config()
    config.model.dropout = config.model.attention_dropout = 0.0
    whole = Trainer(config)
    _, expected = whole.run(whole.fresh(), range(4))
    config.train.accumulation = accumulation
    parts = Trainer(config, devices=2)
    _, got = parts.run(parts.fresh(), range(4))
    for figures, wanted in zip(got, expected):
        for name in ("loss", "masked_loss", "boundary_loss", "gradient_norm", "parameter_norm"):
            assert figures[name] == pytest.approx(wanted[name], rel=1e-5), name


@pytest.mark.parametrize("fields", [{"layers": "scanned"}, {"layers": "scanned", "remat": "names"}, {"remat": "full"}])
def test_layout_and_recomputation_change_no_loss(single, fields):
    config = small_config()
    config.model.update(fields)
    trainer = Trainer(config)
    _, metrics = trainer.run(trainer.fresh(), range(5))
    np.testing.assert_allclose(losses(metrics), single[:5], rtol=1e-5)


def test_same_seed_same_bits_and_another_seed_other_masks(single):
    trainer = Trainer(small_config())
    np.testing.assert_array_equal(losses(trainer.run(trainer.fresh(), range(3))[1]), single[:3])
    config = small_config()
    config.seed = 1
    other = Trainer(config)
    assert (losses(other.run(other.fresh(), range(3))[1]) != single[:3]).all()


def test_next_sentence_head_learns():
    config = small_config()
    config.objectives.next_sentence, config.data.blocks = True, "pairs"
    trainer = Trainer(config)
    _, metrics = trainer.run(trainer.fresh(), range(2), next_sentence=True)
    assert metrics[0]["next_sentence_loss"] == pytest.approx(np.log(2), abs=0.2)
    total = metrics[0]["masked_loss"] + metrics[0]["boundary_loss"] + metrics[0]["next_sentence_loss"]
    assert metrics[0]["loss"] == pytest.approx(total, rel=1e-6)


def test_metrics_count_real_tokens():
    trainer = Trainer(small_config())
    _, [metrics] = trainer.run(trainer.fresh(), range(1))
    assert metrics["tokens"] == np.sum(make_rows(0)["segments"] > 0)


def test_state_is_split_over_the_mesh_and_donated():
    config = small_config()
    config.mesh.update(dict(data=2, fsdp=2, tensor=2))
    trainer = Trainer(config, 8)
    state = trainer.fresh()
    for tree in (state.params, state.opt_state[1].mu):
        kernel = tree["encoder"]["layers"]["feed_forward_in"]["kernel"]
        assert kernel.addressable_shards[0].data.shape == (2, 64, 256)
    after, _ = trainer.run(state, range(1))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))
    assert int(after.step) == 1


def test_mesh_that_does_not_fit_the_devices_is_refused():
    config = small_config()
    config.mesh.data = 3
    with pytest.raises(UserError, match="do not multiply to the 8 devices"):
        make_mesh(config.mesh)


def test_a_large_parameter_left_whole_is_refused():
    config = small_config()
    config.model.size = "medium"
    config.mesh.tensor = 2
    config.mesh.rules = (("batch", ("data", "fsdp")), ("layers", "tensor"), ("mlp", "tensor"), ("vocab", "tensor"))
    # The stacked layers take the axis first, so it is gone for the feed-forward width: legal. But an axis of the mesh
    # that does not divide a dimension is an error, not a silent copy.
    config.mesh.update(dict(tensor=3, data=1))
    with pytest.raises(UserError, match="does not divide 3 ways"):
        Trainer(config, 3)
