"""The optimiser state split over the data axis."""
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import spanbert_jax
from spanbert_jax.training import default_config
from spanbert_jax.training.mesh import make_mesh, spread_over_data
from tests.runs import final_state, losses
from tests.training.small import Trainer, small_config

STEPS = 4


def trainer_of(devices: int = 8, **fields) -> Trainer:
    """A small run without dropout; fields of the config as section__name."""
    config = small_config(dropout=0.0)
    for field, value in fields.items():
        section, name = field.split("__")
        config[section][name] = value
    return Trainer(config, devices)


def train(trainer: Trainer):
    return trainer.run(trainer.fresh(), range(STEPS))


@pytest.fixture(scope="module")
def plain():
    """The state and the metrics after some steps on devices that all keep everything."""
    return train(trainer_of())


def assert_same_figures(metrics, expected) -> None:
    """That losses and norms are equal to rounding."""
    for name in ("loss", "gradient_norm", "parameter_norm"):
        np.testing.assert_allclose([step[name] for step in metrics], [step[name] for step in expected], rtol=1e-5)


def ways(leaf: jax.Array) -> int:
    """Into how many parts an array is split."""
    return leaf.size // math.prod(leaf.addressable_shards[0].data.shape)


def test_each_device_keeps_an_eighth_and_the_rest_is_the_same(plain):
    # The clip is at work, or a wrong norm would change nothing.
    whole, figures = plain
    assert min(step["gradient_norm"] for step in figures) > small_config().optimizer.clip_norm
    state, metrics = train(trainer_of(mesh__zero1=True))
    assert_same_figures(metrics, figures)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state.params, whole.params)
    assert {ways(leaf) for leaf in jax.tree.leaves((state.opt_state[1].mu, state.opt_state[1].nu))} == {8}
    assert {ways(leaf) for leaf in jax.tree.leaves(state.params)} == {1}


def test_with_every_mesh_axis_accumulation_and_updates_left_out(plain):
    _, metrics = train(trainer_of(mesh__zero1=True, mesh__fsdp=2, mesh__tensor=2, train__accumulation=2,
                                  skip__stop_after=3))
    assert_same_figures(metrics, plain[1])


@pytest.mark.parametrize("shape,own,data,expected", [
    ((12, 768, 768), (), 8, (None, "data", None)),  # 96 rows, not 96 lanes
    ((12, 768, 3072), (), 8, (None, None, "data")),  # both are whole tiles: the larger axis
    ((12, 3072, 768), (), 8, (None, "data", None)),
    ((12, 768, 768), (), 4, (None, "data", None)),  # not a layer or three to each, though these are whole tiles too
    ((12, 768), (), 8, (None, "data")),
    ((29056, 768), ("tensor", "fsdp"), 8, (("tensor", "data"), "fsdp")),
    ((12, 768, 3072), (None, "fsdp", "tensor"), 2, (None, "fsdp", ("tensor", "data"))),
    ((7, 8), (), 8, (None, "data")),
    ((16, 7), (), 8, ("data", None)),
    ((5, 7), (), 8, (None, None)),
    ((), (), 8, ())])
def test_the_axis_that_is_split(shape, own, data, expected):
    config = default_config().mesh
    split = 8 // data
    config.update(dict(data=data, fsdp=2 if split == 4 else 1, tensor=2 if split == 4 else split))
    mesh = make_mesh(config)
    got = spread_over_data(jax.ShapeDtypeStruct(shape, jnp.float32), NamedSharding(mesh, PartitionSpec(*own)))
    assert got.is_equivalent_to(NamedSharding(mesh, PartitionSpec(*expected)), len(shape))


def test_a_run_goes_on_with_and_without(files, tmp_path):
    config = spanbert_jax.load_config(str(files.folder / "config.py"), [f"--config.data.path={files.corpus}"])
    config.evaluation.every, config.optimizer.schedule = "0", "constant"

    def run(workdir, steps: int, zero1: bool) -> None:
        config.mesh.zero1, config.train.duration = zero1, f"{steps} steps"
        spanbert_jax.train(config, workdir)

    run(tmp_path / "unbroken", 9, False)
    for steps, zero1 in ((3, True), (6, False), (9, True)):
        run(tmp_path / "broken", steps, zero1)
    got, expected = (losses(tmp_path / name) for name in ("broken", "unbroken"))
    np.testing.assert_allclose(list(got.values()), list(expected.values()), rtol=1e-5)
    state, whole = (final_state(tmp_path / name) for name in ("broken", "unbroken"))
    for name in whole:
        np.testing.assert_allclose(state[name], whole[name], rtol=1e-4, atol=1e-6, err_msg=name)
    assert not list((tmp_path / "broken" / "checkpoints").glob("*.unsound"))
