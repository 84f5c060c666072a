"""Products and look-ups with parameters, against plain formulas differentiated by JAX."""
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from spanbert_jax.model.products import look_up, per_group_gradients, project, tied_logits

B, S, V, D, F = 16, 6, 40, 24, 32
RULES = (("batch", ("data", "fsdp")), ("embed", "fsdp"), ("mlp", "tensor"), ("vocab", "tensor"))
AXES = ("data", "fsdp", "tensor")
PARAMS = {"table": (V, D), "kernel": (D, F), "back": (F, D)}
LAYOUT = {"table": PartitionSpec("tensor", "fsdp"), "kernel": PartitionSpec("fsdp", "tensor"),
          "back": PartitionSpec("tensor", "fsdp")}


def values():
    """Parameters, and ids of which one is in every row."""
    random = np.random.default_rng(0)
    params = {name: random.normal(size=shape).astype(np.float32) for name, shape in PARAMS.items()}
    ids = random.integers(0, V, (B, S), np.int32)
    ids[:, 0] = 7
    return params, ids


def plain(params, ids, dtype):
    """A network that uses its table twice, by formulas alone."""
    x = params["table"].astype(dtype)[ids]
    x = jnp.tanh(x @ params["kernel"].astype(dtype)) @ params["back"].astype(dtype)
    logits = jnp.einsum("BMD,VD->BMV", x, params["table"].astype(dtype), preferred_element_type=jnp.float32)
    return jnp.sum(jax.nn.log_softmax(logits)[..., 0])


def ours(params, ids, dtype, gradient_dtype):
    shares = per_group_gradients(params["table"], gradient_dtype)
    x = look_up(params["table"], shares, ids, dtype)
    x = project(jnp.tanh(project(x, params["kernel"], gradient_dtype)), params["back"], gradient_dtype)
    return jnp.sum(jax.nn.log_softmax(tied_logits(x, params["table"], shares))[..., 0])


def assert_close(got, expected, tolerance: float) -> None:
    """That each gradient differs by less than a share of its largest number."""
    for name, array in expected.items():
        np.testing.assert_allclose(got[name], array, rtol=0, atol=tolerance * np.abs(array).max(), err_msg=name)


def gradients_on_mesh(shape, dtype, gradient_dtype):
    """Gradients on a mesh, its parameters split as a network's are."""
    params, ids = values()
    mesh = jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 3, devices=jax.devices()[:int(np.prod(shape))])
    layout = {name: NamedSharding(mesh, spec) for name, spec in LAYOUT.items()}

    def gradients(params, ids):
        with nn.logical_axis_rules(RULES):
            return jax.grad(ours)(params, ids, dtype, gradient_dtype)

    with jax.set_mesh(mesh):
        rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
        return jax.device_get(jax.jit(gradients, in_shardings=(layout, rows), out_shardings=layout)(params, ids))


@pytest.fixture(scope="module")
def expected():
    return jax.device_get(jax.grad(plain)(*values(), jnp.float32))


def test_values_equal_those_of_plain_formulas():
    params, ids = values()
    for dtype, tolerance in ((jnp.float32, 4e-6), (jnp.bfloat16, 1e-3)):
        np.testing.assert_allclose(ours(params, ids, dtype, jnp.float32), plain(params, ids, dtype), rtol=tolerance)


@pytest.mark.parametrize("gradient_dtype,tolerance", [(jnp.float32, 4e-6), (jnp.bfloat16, 2 ** -8)])
@pytest.mark.parametrize("shape", [(1, 1, 1), (8, 1, 1), (2, 2, 2)])
def test_gradients_equal_those_of_plain_formulas(expected, shape, gradient_dtype, tolerance):
    assert_close(gradients_on_mesh(shape, jnp.float32, gradient_dtype), expected, tolerance)


@pytest.mark.parametrize("gradient_dtype", [jnp.float32, jnp.bfloat16])
def test_gradients_of_a_computation_in_bfloat16(expected, gradient_dtype):
    assert_close(gradients_on_mesh((4, 2, 1), jnp.bfloat16, gradient_dtype), expected, 0.03)


def test_each_device_rounds_its_sum_before_the_reduction():
    def gradient(kernel, x):
        with nn.logical_axis_rules(RULES):
            return jax.grad(lambda kernel: jnp.sum(project(x, kernel, jnp.bfloat16)))(kernel)

    # One row a device; the sums are 1 + 2^-9 on each, and rounded 1 (to even). Added first they were 8 + 2^-6.
    x = np.full((8, 1, 1), 1 + 2 ** -9, np.float32)
    mesh = jax.make_mesh((8, 1, 1), AXES, axis_types=(AxisType.Auto,) * 3)
    with jax.set_mesh(mesh):
        x = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
        got = jax.jit(gradient)(np.ones((1, 1), np.float32), x)
    assert got.dtype == jnp.float32 and float(got[0, 0]) == 8


@pytest.mark.parametrize("gradient_dtype", [jnp.float32, jnp.bfloat16])
def test_gradients_of_frequent_tokens_are_exact_in_bfloat16(gradient_dtype):
    def total(table):
        ids = jnp.zeros((B, 256), jnp.int32)
        return jnp.sum(look_up(table, per_group_gradients(table, gradient_dtype), ids,
                               jnp.bfloat16).astype(jnp.float32))

    # Added one by one in bfloat16 it would not get past 256.
    np.testing.assert_array_equal(jax.grad(total)(np.ones((3, 2), np.float32)), [[B * 256] * 2, [0, 0], [0, 0]])


def test_one_vector_for_each_row_is_projected():
    params, _ = values()
    x = np.random.default_rng(1).normal(size=(B, D)).astype(np.float32)
    got = jax.grad(lambda x, kernel: jnp.sum(project(x, kernel, jnp.float32) ** 2), (0, 1))(x, params["kernel"])
    want = jax.grad(lambda x, kernel: jnp.sum((x @ kernel) ** 2), (0, 1))(x, params["kernel"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4), got, want)
