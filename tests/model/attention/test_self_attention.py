"""SelfAttention on meshes, where kernels run on each device's rows and heads, against plain attention on one device."""
import contextlib
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spanbert_jax.model import BertConfig, ComputeConfig
from spanbert_jax.model.attention import paired_heads
from spanbert_jax.model.attention.self_attention import SelfAttention
from spanbert_jax.pretraining.config import default_config
from spanbert_jax.training.mesh import make_mesh
from tests.model.attention.cases import TOLERANCE, make_inputs

# The smallest heads and rows that the kernel supports.
CONFIG = BertConfig(vocab_size=1, width=256, num_heads=4, attention_dropout=0.2)
COMPUTE = ComputeConfig(dtype="float32")
SEED = jnp.asarray([5, 6], jnp.uint32)


@pytest.fixture(scope="module")
def case():
    """Input [8, 128, 256], segments, a gradient of the output, and parameters."""
    calls = [make_inputs(CONFIG.attention_spec, 128, 4, "float32", seed) for seed in range(4)]
    x, above, segments = (jnp.concatenate([part[:2] for part in parts]) for parts in zip(
        *((inputs.projections[0], inputs.projections[2], inputs.segments) for inputs in calls)))
    params = nn.unbox(SelfAttention(CONFIG, COMPUTE).init(jax.random.key(0), x[:1], segments[:1], None))
    return x, segments, above * (segments > 0)[..., None], params


def computed(case, attention: str, seed: jax.Array | None) -> dict[str, np.ndarray]:
    """The output at tokens, and the gradients of input and parameters, by name."""
    x, segments, above, params = case
    module = SelfAttention(CONFIG, COMPUTE.replace(attention=attention))

    @jax.jit
    def run(x, params):
        output, pull = jax.vjp(lambda x, params: module.apply(params, x, segments, seed), x, params)
        return {"output": output * (segments > 0)[..., None], "gradients": pull(above)}

    leaves, _ = jax.tree_util.tree_flatten_with_path(run(x, params))
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


@pytest.fixture(scope="module")
def plain(case):
    """Results of plain attention on one device, by whether there is no seed."""
    return {seed is None: computed(case, "plain", seed) for seed in (SEED, None)}


@pytest.mark.parametrize("attention", ["paired_heads", "splash", "cudnn", "blockwise"])
def test_parameters_do_not_depend_on_the_backend(case, attention):
    module = SelfAttention(CONFIG, COMPUTE.replace(attention=attention))
    # A row that no kernel supports.
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.ones((1, 7, 256)), jnp.ones((1, 7), jnp.uint8), None)
    assert jax.tree.map(jnp.shape, nn.unbox(shapes)) == jax.tree.map(jnp.shape, case[-1])


@pytest.mark.parametrize("attention,mesh,seed", [
    ("plain", (2, 2, 2), SEED), ("paired_heads", None, SEED), ("paired_heads", (8, 1, 1), SEED),
    ("paired_heads", (2, 2, 2), SEED), ("paired_heads", (2, 2, 2), None), ("blockwise", (2, 2, 2), SEED)])
def test_every_mesh_gives_the_same_result(case, plain, attention, mesh, seed, monkeypatch):
    # Not TPU interpret mode, where devices wait for each other, each on a core of its own.
    monkeypatch.setattr(paired_heads.pl, "pallas_call", functools.partial(paired_heads.pl.pallas_call, interpret=True))
    with contextlib.ExitStack() as stack:
        if mesh:
            config = default_config().mesh
            config.update(dict(zip(("data", "fsdp", "tensor"), mesh)))
            stack.enter_context(jax.set_mesh(make_mesh(config)))
            stack.enter_context(nn.logical_axis_rules(config.rules))
        got = computed(case, attention, seed)
    assert got.keys() == plain[seed is None].keys()
    for name, expected in plain[seed is None].items():
        # A key's bias shifts all scores of a query equally, so its gradient is rounding noise around zero.
        if "'key']['bias'" not in name:
            np.testing.assert_allclose(got[name], expected, atol=TOLERANCE["float32"] * np.abs(expected).max(),
                                       err_msg=name)


def test_kernels_run_inside_a_shard_map(case, plain):
    x, segments, _, params = case
    module = SelfAttention(CONFIG, COMPUTE.replace(attention="blockwise"))
    mesh = jax.make_mesh((8,), ("devices",), axis_types=(jax.sharding.AxisType.Auto,))
    share = jax.sharding.PartitionSpec("devices")
    with jax.set_mesh(mesh):
        run = jax.shard_map(lambda x, segments: module.apply(params, x, segments, None), in_specs=(share, share),
                            out_specs=share, check_vma=False)
        output = np.asarray(jax.jit(run)(x, segments)) * np.asarray(segments > 0)[..., None]
    expected = plain[True]["['output']"]
    np.testing.assert_allclose(output, expected, atol=TOLERANCE["float32"] * np.abs(expected).max())
