"""Elementwise functions and layer norm: values and gradients of their formulas, with few residuals."""
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from spanbert_jax.model.functions import add_bias, gated_gelu, gelu, normalize

TOLERANCE = {"float32": 2e-6, "bfloat16": 1e-2}
EPSILON = 1e-12


def arrays(dtype: str, *shapes: tuple[int, ...], seed: int = 0) -> list[jax.Array]:
    random = np.random.default_rng(seed)
    return [jnp.asarray(random.normal(size=shape), dtype) for shape in shapes]


def assert_near(got: jax.Array, expected: np.ndarray, dtype: str) -> None:
    """Asserts that an array is right to the rounding of its type, relative to its largest number."""
    error = np.abs(np.asarray(got, np.float64) - expected).max() / np.abs(expected).max()
    assert error < TOLERANCE[dtype], error


def assert_as_formula(function, formula, above: jax.Array, *inputs: jax.Array, types: tuple[str, ...]) -> None:
    """Asserts value and gradients, against JAX's derivatives of a formula in float64."""
    value, pull = jax.vjp(function, *inputs)
    gradients = pull(above)
    assert value.dtype == above.dtype and [gradient.dtype for gradient in gradients] == list(types)
    with jax.enable_x64(True):
        wide = [jnp.asarray(np.asarray(array, np.float64)) for array in (above, *inputs)]
        expected, pull = jax.vjp(formula, *wide[1:])
        expected = [np.asarray(array) for array in (expected, *pull(wide[0]))]
    for got, right in zip((value, *gradients), expected, strict=True):
        assert_near(got, right, above.dtype.name)


@pytest.mark.parametrize("activated", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_add_bias(dtype, activated):
    x, bias, above = arrays(dtype, (6, 50, 40), (40,), (6, 50, 40))
    assert_as_formula(lambda x, bias: add_bias(x, bias, activated), lambda x, bias: x + bias, above, x, bias,
                      types=(dtype, dtype))


@pytest.mark.parametrize("activated", [False, True])
def test_bias_gradients_are_summed_in_float32(activated):
    # In bfloat16 a sum of ones stays at 256.
    x, bias = jnp.zeros((30, 100, 8), jnp.bfloat16), jnp.zeros(8, jnp.bfloat16)
    _, pull = jax.vjp(lambda x, bias: add_bias(x, bias, activated), x, bias)
    np.testing.assert_allclose(np.asarray(pull(jnp.ones_like(x))[1], np.float32), 3000, rtol=4e-3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gelu(dtype):
    x = jnp.linspace(-9, 9, 4001).astype(dtype).reshape(1, -1)
    above, = arrays(dtype, x.shape)
    assert_as_formula(gelu, lambda x: 0.5 * x * (1 + jax.lax.erf(x / math.sqrt(2))), above, x, types=(dtype,))
    # Alone, without its derivative, it is computed otherwise.
    assert_near(gelu(x), np.asarray(x, np.float64) * special.ndtr(np.asarray(x, np.float64)), dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gated_gelu(dtype):
    x, gate, above = arrays(dtype, (40, 30), (40, 30), (40, 30))
    assert_as_formula(gated_gelu, lambda x, gate: gate * x * (1 + jax.lax.erf(x / math.sqrt(2))) / 2, above, 2 * x,
                      gate, types=(dtype, dtype))


def test_gelu_far_from_zero():
    x = jnp.asarray([-1e30, -1e4, 0, 1e4, 1e30])
    value, pull = jax.vjp(gelu, x)
    np.testing.assert_array_equal(value, np.maximum(x, 0))
    np.testing.assert_array_equal(pull(jnp.ones(5))[0], [0, 0, 0.5, 1, 1])


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """Its formula."""
    return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + EPSILON) * scale + bias


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_layer_norm(dtype):
    x, above = arrays(dtype, (6, 50, 40), (6, 50, 40))
    scale, bias = arrays("float32", (40,), (40,), seed=1)
    assert_as_formula(lambda *inputs: normalize(*inputs, EPSILON), layer_norm, above, x, scale, bias,
                      types=(dtype, "float32", "float32"))


def test_layer_norm_is_exact_far_from_zero():
    x, scale, bias = arrays("float32", (20, 64), (64,), (64,))
    with jax.enable_x64(True):
        expected = np.asarray(layer_norm(*(np.asarray(array, np.float64) for array in (x + 1000, scale, bias))))
    np.testing.assert_allclose(normalize(x + 1000, scale, bias, EPSILON), expected, atol=1e-3)


def test_layer_norm_of_equal_elements_is_the_bias():
    _, scale, bias = arrays("float32", (1,), (64,), (64,))
    value, pull = jax.vjp(lambda x: normalize(x, scale, bias, EPSILON), jnp.full((2, 64), 3.0))
    np.testing.assert_array_equal(value, np.tile(bias, (2, 1)))
    assert np.isfinite(pull(jnp.ones((2, 64)))[0]).all()


def test_each_function_keeps_at_most_one_residual_of_the_size_of_its_result():
    (x, bias), (scale,) = arrays("bfloat16", (8, 32, 64), (64,)), arrays("float32", (64,))
    functions = (lambda x: add_bias(x, bias, False), 0), (gelu, 1), (lambda x: normalize(x, scale, scale, EPSILON), 1)
    for function, large in functions:
        kept = [leaf for leaf in jax.tree.leaves(jax.vjp(function, x)[1]) if leaf.size >= x.size]
        assert len(kept) == large and all(leaf.dtype == x.dtype for leaf in kept)
