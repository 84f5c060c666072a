"""The train step: the same losses on every mesh, accumulation, dtypes, shardings."""
import functools

import jax
import numpy as np
import pytest
from scipy.special import log_softmax

from spanbert_jax.common.errors import UserError
from spanbert_jax.pretraining.objective import apply_model
from spanbert_jax.training import mesh
from spanbert_jax.training.batch_warmup import BatchWarmup
from spanbert_jax.training.step import step_key
from tests.training.small import ROWS, VOCABULARY, Trainer, losses, make_rows, small_config


@pytest.fixture(scope="module")
def trainer():
    """A trainer on one device, compiled once for the tests that change no setting."""
    return Trainer(small_config())


@pytest.fixture(scope="module")
def single(trainer):
    """Losses of 4 steps on one device."""
    return losses(trainer.run(trainer.fresh(), range(4))[1])


@pytest.fixture(scope="module")
def undropped():
    """Metrics of 4 steps on one device without dropout."""
    trainer = Trainer(small_config(dropout=0.0))
    return trainer.run(trainer.fresh(), range(4))[1]


@functools.cache
def trainer_on(data: int, fsdp: int, tensor: int) -> Trainer:
    config = small_config()
    config.mesh.update(dict(data=data, fsdp=fsdp, tensor=tensor))
    return Trainer(config, data * fsdp * tensor)


@pytest.mark.parametrize("data,fsdp,tensor", [(8, 1, 1), (2, 2, 2)])
def test_every_mesh_gives_the_same_losses(single, data, fsdp, tensor):
    trainer = trainer_on(data, fsdp, tensor)
    _, metrics = trainer.run(trainer.fresh(), range(4))
    np.testing.assert_allclose(losses(metrics), single, rtol=1e-5)


def test_every_step_and_every_seed_has_its_own_key():
    keys = {tuple(jax.random.key_data(step_key(seed, step)).tolist()) for seed in range(3) for step in range(5)}
    assert len(keys) == 15


def test_losses_fall_when_rows_repeat(trainer):
    state = trainer.fresh()
    first = last = None
    for _ in range(30):
        state, [metrics] = trainer.run(state, range(1))
        first, last = first or metrics["masked_loss"], metrics["masked_loss"]
    assert last < first - 0.5


def test_accumulation_gives_the_loss_and_norms_of_the_whole_batch(undropped):
    config = small_config(dropout=0.0)
    config.train.accumulation = 4
    parts = Trainer(config, devices=2)
    _, got = parts.run(parts.fresh(), range(4))
    for values, expected in zip(got, undropped, strict=True):
        for name in ("loss", "masked_loss", "boundary_loss", "gradient_norm", "parameter_norm"):
            assert values[name] == pytest.approx(expected[name], rel=1e-5), name


def test_the_loss_of_each_row_is_that_of_the_row_alone():
    config, devices = small_config(dropout=0.0), 8
    config.train.accumulation, config.objectives.boundary_weight = 2, 0.5
    trainer = Trainer(config, devices)
    state, batch = trainer.fresh(), make_rows(0)
    with jax.set_mesh(trainer.mesh):
        rows, _ = trainer.objective.prepare_inputs(jax.random.fold_in(step_key(config.seed, 0), 0), batch)
        logits = apply_model(trainer.model, state.params, rows, batch)
    expected = np.zeros(ROWS)
    for values, weights, share in ((logits.masked, rows.weights, 1), (logits.boundary, rows.boundary_weights, 0.5)):
        found = np.take_along_axis(log_softmax(values, axis=-1), np.asarray(rows.targets)[..., None], -1)[..., 0]
        expected -= share * np.sum(found * weights, axis=1) / np.maximum(np.sum(weights, axis=1), 1)
    trainer.run(state, range(1))
    assert len(trainer.row_losses.sharding.device_set) == devices
    np.testing.assert_allclose(trainer.row_losses, expected, rtol=1e-4)
    assert expected.min() > 1 and expected.std() > 0.01


def test_a_growing_batch_counts_the_rows_of_the_parts_that_it_uses():
    config = small_config(dropout=0.0)
    config.train.accumulation = 4
    trainer = Trainer(config, devices=2, warmup=BatchWarmup(parts=4, steps=3))
    _, metrics = trainer.run(trainer.fresh(), range(4))
    # Row r belongs to part r mod 4. The rows of the other parts are of padding now, and steps use fewer of them.
    used = iter(range(1, 5))

    def keep_used(name, values):
        number = next(used) if name == "tokens" else keep_used.number
        keep_used.number = number
        return np.where((np.arange(len(values)) % 4 < number).reshape(-1, *[1] * (values.ndim - 1)), values, 0)

    _, without = trainer.run(trainer.fresh(), range(4), change=keep_used)
    assert metrics == without
    for step, values in enumerate(metrics):
        assert values["tokens"] == np.sum(make_rows(step)["segments"][np.arange(ROWS) % 4 <= step] > 0)
        # The loss divides by the targets of the used parts, as the means of both heads do.
        assert values["loss"] == pytest.approx(values["masked_loss"] + values["boundary_loss"], rel=1e-6)


def test_the_same_seed_gives_the_same_bits_and_another_seed_other_masks(trainer, single):
    np.testing.assert_array_equal(losses(trainer.run(trainer.fresh(), range(3))[1]), single[:3])
    config = small_config()
    config.seed = 1
    other = Trainer(config)
    assert (losses(other.run(other.fresh(), range(3))[1]) != single[:3]).all()


def test_bfloat16_changes_losses_little_and_keeps_float32_parameters(undropped):
    config = small_config(dropout=0.0)
    config.compute.dtype = "bfloat16"
    trainer = Trainer(config)
    state, metrics = trainer.run(trainer.fresh(), range(4))
    np.testing.assert_allclose(losses(metrics), losses(undropped), rtol=5e-3)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {np.dtype(np.float32)}


def test_the_next_sentence_loss_is_part_of_the_loss():
    config = small_config(dropout=0.0)
    config.objectives.next_sentence, config.data.blocks = True, "pairs"
    trainer = Trainer(config)
    _, metrics = trainer.run(trainer.fresh(), range(2), next_sentence=True)
    assert metrics[0]["next_sentence_loss"] == pytest.approx(np.log(2), abs=0.2)
    total = metrics[0]["masked_loss"] + metrics[0]["boundary_loss"] + metrics[0]["next_sentence_loss"]
    assert metrics[0]["loss"] == pytest.approx(total, rel=1e-6)


def test_single_tokens_have_no_boundary_loss():
    config = small_config(dropout=0.0)
    config.masking.scheme = "token"
    trainer = Trainer(config)
    _, [metrics] = trainer.run(trainer.fresh(), range(1))
    assert not [name for name in metrics if name.startswith("boundary")]
    assert metrics["loss"] == metrics["masked_loss"] > 0


def test_tokens_are_counted_without_padding(trainer):
    _, [metrics] = trainer.run(trainer.fresh(), range(1))
    assert metrics["tokens"] == np.sum(make_rows(0)["segments"] > 0)


def test_state_is_split_over_the_mesh_and_donated():
    trainer = trainer_on(2, 2, 2)
    state = trainer.fresh()
    for tree in (state.params, state.opt_state[1].mu):
        kernel = tree["encoder"]["layers"]["feed_forward_in"]["kernel"]
        assert kernel.addressable_shards[0].data.shape == (2, 32, 64)
    after, _ = trainer.run(state, range(1))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))
    assert int(after.step) == 1


def test_a_mesh_that_does_not_fit_the_devices_is_refused():
    config = small_config()
    config.mesh.data = 3
    with pytest.raises(UserError, match="do not multiply to the 8 devices"):
        mesh.make_mesh(config.mesh)


@pytest.mark.parametrize("fsdp,tensor,rules,message", [
    (1, 3, (("mlp", "tensor"),), "does not divide 3 ways over mesh axis 'tensor'"),
    (1, 2, (("embed", "tensor"), ("mlp", "tensor")), "claim mesh axis 'tensor'"),
    (2, 1, (("mlp", "tensor"),), "stays whole on all 2 devices of mesh.fsdp")])
def test_wasteful_or_impossible_shardings_are_refused(fsdp, tensor, rules, message, monkeypatch):
    monkeypatch.setattr(mesh, "LARGE", VOCABULARY * 64)
    config = small_config()
    config.mesh.update(dict(fsdp=fsdp, tensor=tensor, rules=(("batch", "data"), *rules)))
    with pytest.raises(UserError, match=message):
        Trainer(config, fsdp * tensor)
