"""The dtype in which gradients are summed over the devices."""
import re

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from spanbert_jax.planning.compiler.hlo import array_bytes
from spanbert_jax.training.mesh import batch_sharding, stop_flags
from spanbert_jax.training.step import loss_and_gradients
from tests.training.small import Trainer, losses, make_rows, small_config

STEPS = 4


def trainer_of(gradient_dtype: str) -> Trainer:
    """A model of one layer, so that the loop over layers runs once, on eight devices of the data axis."""
    config = small_config(dropout=0.0)
    config.model.num_layers, config.compute.gradient_dtype = 1, gradient_dtype
    return Trainer(config, 8)


def compile_and_run(gradient_dtype: str, folder):
    """Bytes all-reduced in a step by dtype, the state, and the metrics after some steps.

    The bytes are counted after partitioning; later passes widen bfloat16 on CPUs, which cannot add it.
    """
    trainer = trainer_of(gradient_dtype)
    rows = batch_sharding(trainer.mesh, trainer.config.mesh.rules)
    batch = {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=rows) for name, x in make_rows(0).items()}
    with jax.set_mesh(trainer.mesh):
        trainer.step = trainer.step.lower(trainer.abstract_state, batch, stop_flags(trainer.mesh, False)).compile(
            compiler_options={"xla_dump_to": str(folder), "xla_dump_hlo_pass_re": "spmd-partitioning"})
    text = next(folder.glob("*after_spmd-partitioning*.txt")).read_text()
    sizes = {"f32": 0, "bf16": 0}
    for kind in re.findall(r" = (\S+) all-reduce\(", text):
        if (dtype := kind.split("[")[0]) in sizes:
            sizes[dtype] += array_bytes(kind)
    return sizes, *trainer.run(trainer.fresh(), range(STEPS))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    # Programs from the compilation cache are not dumped.
    enabled = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    yield {dtype: compile_and_run(dtype, tmp_path_factory.mktemp(dtype)) for dtype in ("float32", "bfloat16")}
    jax.config.update("jax_enable_compilation_cache", enabled)
    compilation_cache.reset_cache()


def test_bfloat16_halves_the_bytes_and_every_parameter_is_reduced_once(runs):
    params = jax.tree_util.tree_leaves_with_path(runs["float32"][1].params)
    matrices = sum(leaf.size for path, leaf in params if path[-1].key in ("kernel", "embedding"))
    wide, narrow = runs["float32"][0], runs["bfloat16"][0]
    assert narrow["bf16"] == 2 * matrices and wide["bf16"] == 0
    assert wide["f32"] - narrow["f32"] == 4 * matrices
    assert narrow["f32"] < 0.1 * 4 * matrices  # biases, norms, metrics


def test_bfloat16_changes_a_run_only_by_rounding(runs):
    (_, state, metrics), (_, _, expected) = runs["bfloat16"], runs["float32"]
    np.testing.assert_allclose(losses(metrics), losses(expected), rtol=1e-3)
    norms = [[step["gradient_norm"] for step in steps] for steps in (metrics, expected)]
    np.testing.assert_allclose(*norms, rtol=1e-2)
    assert norms[0] != norms[1]
    assert {leaf.dtype for leaf in jax.tree.leaves((state.params, state.opt_state[1].mu))} == {np.dtype(np.float32)}


@pytest.mark.parametrize("accumulation", [1, 2])
def test_gradients_of_parts_are_added_in_float32(accumulation):
    trainer = trainer_of("bfloat16")

    def gradients(params, batch):
        inputs = trainer.objective.prepare_inputs(jax.random.key(0), batch)
        return loss_and_gradients(trainer.objective, params, inputs, jax.random.key(1), accumulation)[2]

    with jax.set_mesh(trainer.mesh):
        got = jax.eval_shape(gradients, trainer.abstract_state.params, make_rows(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {np.dtype(np.float32)}
