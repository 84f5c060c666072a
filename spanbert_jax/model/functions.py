"""Elementwise functions and layer norm, with derivatives that keep few residuals and are cheap on accelerators.

By default JAX keeps every intermediate value for the backward pass, several of the size of the result. Each function
here keeps at most one array of that size.
"""
import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def add_bias(x: Float[Array, "... D"], bias: Float[Array, " D"], activated: bool) -> Float[Array, "... D"]:
    """Adds a bias; `activated` if an activation follows.

    The gradient through an activation is computed at the end of a matrix product, where its rows can be summed too;
    other gradients have to be read once more.
    """
    return x + bias


def _add_bias_backward(activated: bool, _: None, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    if activated:
        total = jnp.sum(gradient.astype(jnp.float32), axis=tuple(range(gradient.ndim - 1)))
    else:
        total = _sum_of_rows(gradient)
    return gradient, total.astype(gradient.dtype)


add_bias.defvjp(lambda x, bias, activated: (x + bias, None), _add_bias_backward)


def _sum_of_rows(x: Float[Array, "... D"]) -> Float32[Array, " D"]:
    """The sum of rows, as a product with ones, which is free on a TPU's matrix unit."""
    flat = x.reshape(-1, x.shape[-1])
    # Eight rows of ones, or the compiler turns it back into a sum; at the highest precision, or a TPU would round
    # float32 to bfloat16 first.
    return jnp.matmul(jnp.ones((8, len(flat)), x.dtype), flat, precision=jax.lax.Precision.HIGHEST,
                      preferred_element_type=jnp.float32)[0]


@jax.custom_vjp
def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The exact GELU, by the error function, as in BERT.

    Its derivative is computed with it, at the end of the product that makes its input, and kept instead of the input.
    An accelerator's compiler may still recompute it where that is cheaper than reading it.
    """
    # Not jax.nn.gelu, whose function erfc has a branch: TPUs would store which was taken for the backward pass.
    return _gelu(x)[0]


def _gelu(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The function and its derivative."""
    wide = x.astype(jnp.float32)
    below = 0.5 * (1 + jax.lax.erf(wide * math.sqrt(0.5)))
    density = jnp.exp(-0.5 * wide * wide) * (1 / math.sqrt(2 * math.pi))
    return (wide * below).astype(x.dtype), (below + wide * density).astype(x.dtype)


gelu.defvjp(_gelu, lambda derivative, gradient: (gradient * derivative,))


@jax.custom_vjp
def gated_gelu(x: Float[Array, "..."], gate: Float[Array, "..."]) -> Float[Array, "..."]:
    """GELU of x times a gate. Only the two inputs are kept; the function is computed again for the backward pass."""
    return gelu(x) * gate


def _gated_gelu_backward(kept: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, gate = kept
    # Behind a barrier, or the compiler would keep what the forward pass has computed.
    value, derivative = _gelu(jax.lax.optimization_barrier(x))
    return gradient * gate * derivative, gradient * value


gated_gelu.defvjp(lambda x, gate: (gated_gelu(x, gate), (x, gate)), _gated_gelu_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalize(x: Float[Array, "... D"], scale: Float[Array, " D"], bias: Float[Array, " D"],
              epsilon: float) -> Float[Array, "... D"]:
    """Layer norm over the last axis, computed in float32; the result has the dtype of x."""
    return _normalize(x, scale, bias, epsilon)[0]


def _normalize(x: jax.Array, scale: jax.Array, bias: jax.Array,
               epsilon: float) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    wide = x.astype(jnp.float32)
    mean = jnp.mean(wide, axis=-1, keepdims=True)
    # Not E[x^2] - E[x]^2, which is too inexact for parity with the reference.
    inverse = jax.lax.rsqrt(jnp.mean(jnp.square(wide - mean), axis=-1, keepdims=True) + epsilon)
    return ((wide - mean) * inverse * scale + bias).astype(x.dtype), (x, scale, mean, inverse)


def _normalize_backward(epsilon: float, kept: tuple[jax.Array, ...],
                        gradient: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, scale, mean, inverse = kept
    unit, above = (x.astype(jnp.float32) - mean) * inverse, gradient.astype(jnp.float32)
    scaled = above * scale
    back = scaled - jnp.mean(scaled, axis=-1, keepdims=True) - unit * jnp.mean(scaled * unit, axis=-1, keepdims=True)
    return ((back * inverse).astype(x.dtype),
            jnp.sum(above * unit, axis=tuple(range(x.ndim - 1))), _sum_of_rows(gradient))


normalize.defvjp(_normalize, _normalize_backward)
