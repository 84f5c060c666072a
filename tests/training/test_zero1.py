"""The optimiser state split over the data axis."""
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import spanbert_jax
from spanbert_jax.checkpoints import Checkpointer
from spanbert_jax.corpus import open_corpus
from spanbert_jax.model import BertConfig, SpanBert
from spanbert_jax.pretraining.config import as_pretraining_config, default_config
from spanbert_jax.pretraining.workload import build
from spanbert_jax.training import mesh
from spanbert_jax.training.optimizers import make_optimizer
from spanbert_jax.training.state import abstract_train_state
from tests.training.small import Trainer, small_config

STEPS = 4
# Kernels and embeddings of the small model are larger than this, all other parameters smaller.
LARGE = 1 << 12


def trainer_of(devices: int = 8, **fields) -> Trainer:
    """A small run without dropout; config fields are given as section__name."""
    config = small_config(dropout=0.0)
    for field, value in fields.items():
        section, name = field.split("__")
        config[section][name] = value
    return Trainer(config, devices)


@pytest.fixture(scope="module")
def plain():
    """A trainer on eight devices that replicate the optimiser state, its state and its metrics after some steps."""
    trainer = trainer_of()
    return trainer, *trainer.run(trainer.fresh(), range(STEPS))


@pytest.fixture(scope="module")
def split():
    """The same with a split optimiser state."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mesh, "LARGE", LARGE)
        trainer = trainer_of(mesh__zero1=True)
        return trainer, *trainer.run(trainer.fresh(), range(STEPS))


def assert_same_metrics(metrics, expected) -> None:
    """Asserts that losses and norms are equal up to rounding."""
    for name in ("loss", "gradient_norm", "parameter_norm"):
        np.testing.assert_allclose([step[name] for step in metrics], [step[name] for step in expected], rtol=1e-5)


def assert_same_params(state, expected) -> None:
    """Asserts that parameters are equal up to rounding."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state.params, expected.params)


def ways(leaf: jax.Array) -> int:
    """Number of parts of an array."""
    return leaf.size // math.prod(leaf.addressable_shards[0].data.shape)


def test_each_device_stores_an_eighth_and_the_run_is_the_same(plain, split):
    (trainer, expected_state, expected), (_, state, metrics) = plain, split
    # Gradients are clipped, so a wrong norm would change the run.
    assert min(step["gradient_norm"] for step in expected) > trainer.config.optimizer.clip_norm
    assert_same_metrics(metrics, expected)
    assert_same_params(state, expected_state)
    for leaf in jax.tree.leaves((state.opt_state[1].mu, state.opt_state[1].nu)):
        assert ways(leaf) == (8 if leaf.size >= LARGE else 1), leaf.shape
    assert {ways(leaf) for leaf in jax.tree.leaves(state.params)} == {1}


def test_zero1_works_with_every_mesh_axis_accumulation_and_skipped_updates(plain, monkeypatch):
    monkeypatch.setattr(mesh, "LARGE", LARGE)
    trainer = trainer_of(mesh__zero1=True, mesh__fsdp=2, mesh__tensor=2, train__accumulation=2, skip__stop_after=3)
    assert_same_metrics(trainer.run(trainer.fresh(), range(STEPS))[1], plain[2])


@pytest.mark.parametrize("order", [("split", "plain"), ("plain", "split")])
def test_a_checkpoint_with_either_layout_resumes_with_the_other(plain, split, order, tmp_path):
    trainers = {"plain": plain[0], "split": split[0]}
    before, after = (trainers[name] for name in order)
    state, _ = before.run(before.fresh(), range(2))
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(2, state, {})
        checkpointer.wait()
        _, restored = checkpointer.resume(after.abstract_state, lambda step, metadata: None)
    jax.tree.map(np.testing.assert_array_equal, restored.opt_state, state.opt_state)
    state, metrics = after.run(restored, range(2, STEPS))
    assert_same_metrics(metrics, plain[2][2:])
    assert_same_params(state, plain[1])


def test_an_experiment_uses_the_setting(files, monkeypatch):
    monkeypatch.setattr(mesh, "LARGE", LARGE)
    config = spanbert_jax.load_config(
        str(files.folder / "config.py"), [f"--config.data.path={files.corpus}", "--config.mesh.zero1=True"])
    mu = build(as_pretraining_config(config), open_corpus(files.corpus)).abstract_state.opt_state[1].mu
    table = mu["encoder"]["embeddings"]["token"]["embedding"]
    assert table.sharding.shard_shape(table.shape) == (table.shape[0] // 8, table.shape[1])


@pytest.mark.parametrize("shape,own,data,expected", [
    ((12, 768, 768), (), 8, (None, "data", None)),  # 96 rows, not 96 lanes
    ((12, 768, 3072), (), 8, (None, None, "data")),  # both give whole tiles: the larger axis
    ((12, 3072, 768), (), 8, (None, "data", None)),
    ((12, 768, 768), (), 4, (None, "data", None)),  # not the layers, although they give whole tiles too
    ((12, 768), (), 8, (None, "data")),
    ((29056, 768), ("tensor", "fsdp"), 8, (("tensor", "data"), "fsdp")),
    ((12, 768, 3072), (None, "fsdp", "tensor"), 2, (None, "fsdp", ("tensor", "data"))),
    ((7, 8), (), 8, (None, "data")),
    ((16, 7), (), 8, ("data", None)),
    ((5, 7), (), 8, (None, None)),
    ((), (), 8, ())])
def test_the_axis_to_split_is_chosen(monkeypatch, shape, own, data, expected):
    monkeypatch.setattr(mesh, "LARGE", 0)
    config = default_config().mesh
    split = 8 // data
    config.update(dict(data=data, fsdp=2 if split == 4 else 1, tensor=2 if split == 4 else split))
    devices = mesh.make_mesh(config)
    got = mesh.spread_over_data(jax.ShapeDtypeStruct(shape, jnp.float32), NamedSharding(devices, PartitionSpec(*own)))
    assert got.is_equivalent_to(NamedSharding(devices, PartitionSpec(*expected)), len(shape))


def test_nearly_all_of_the_published_model_is_split():
    config = default_config()
    optimizer = make_optimizer(config.optimizer, lambda count: 1e-4)
    state = abstract_train_state(SpanBert(BertConfig.named("base", vocab_size=28996)), optimizer,
                                 mesh.make_mesh(config.mesh), config.mesh.rules, zero1=True)
    leaves = jax.tree.leaves(state.opt_state[1].mu)
    kept = sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in leaves)
    assert kept < (1 / 8 + 0.03) * sum(leaf.size for leaf in leaves)
