"""Matrix products and look-ups with parameters, and how the gradients of the parameters are summed over devices.

The gradient of a kernel or an embedding is a sum over rows, which are spread over devices. By default the compiler sums
the output of a product over devices, in whatever dtype and at whatever point it is computed. Here the rows of each
device give a gradient of their own in float32 first; it is rounded to the requested dtype and then summed over devices
in that dtype, once for each parameter.
"""
import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Float32, Integer


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def project(x: Float[Array, "B *rest width"], kernel: Float[Array, "width features"],
            gradient_dtype: jnp.dtype) -> Float[Array, "B *rest features"]:
    """A product with a float32 kernel, in the dtype of x; its gradient is summed over devices in `gradient_dtype`."""
    return _project(x, kernel, gradient_dtype)[0]


def _project(x: jax.Array, kernel: jax.Array, gradient_dtype: jnp.dtype) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    # Rounded once: a TPU's compiler would fuse the rounding into each product and repeat it for every tile of rows.
    kernel = jax.lax.optimization_barrier(kernel.astype(x.dtype))
    return x @ kernel, (x, kernel)


def _project_backward(gradient_dtype: jnp.dtype, kept: tuple[jax.Array, ...],
                      gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    group_gradients = _outer_products(x, gradient, _row_groups()[1])
    return jnp.einsum("...o,io->...i", gradient, kernel), _sum_groups(group_gradients, gradient_dtype)


project.defvjp(_project, _project_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def per_group_gradients(embedding: Float[Array, "V D"], gradient_dtype: jnp.dtype) -> Float32[Array, "G V D"]:
    """Zeros whose gradients collect those of an embedding, separately for each of G groups of rows.

    Every use of the embedding takes this array and sends its gradient to it. Autodiff adds up the gradients of all
    uses, which are then summed over the groups in `gradient_dtype` and become the embedding's gradient.
    """
    return jnp.zeros((_row_groups()[1], *embedding.shape), jnp.float32)


per_group_gradients.defvjp(lambda embedding, gradient_dtype: (per_group_gradients(embedding, gradient_dtype), None),
                       lambda gradient_dtype, _, group_gradients: (_sum_groups(group_gradients, gradient_dtype),))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def look_up(embedding: Float[Array, "V D"], group_gradients: Float32[Array, "G V D"], ids: Integer[Array, "*shape"],
            dtype: jnp.dtype) -> Float[Array, "*shape D"]:
    """Rows of a float32 embedding in another dtype; NaN for ids out of bounds. `group_gradients` take its gradient."""
    return jnp.take(embedding.astype(dtype), ids, axis=0)


def _look_up_backward(dtype: jnp.dtype, kept: tuple[jax.Array, ...],
                      gradient: jax.Array) -> tuple[None, jax.Array, None]:
    group_gradients, ids = kept

    def add(ids: jax.Array, gradient: jax.Array) -> jax.Array:
        # In float32: some tokens occur so often that bfloat16 would lose the last additions.
        return jnp.zeros(group_gradients.shape[1:], jnp.float32).at[ids].add(gradient.astype(jnp.float32))

    groups = len(group_gradients)
    return None, _on_own_devices(jax.vmap(add)(_grouped(ids, groups), _grouped(gradient, groups))), None


look_up.defvjp(lambda embedding, group_gradients, ids, dtype: (
    look_up(embedding, group_gradients, ids, dtype), (group_gradients, ids)), _look_up_backward)


@jax.custom_vjp
def tied_logits(x: Float[Array, "B M D"], embedding: Float[Array, "V D"],
                group_gradients: Float32[Array, "G V D"]) -> Float32[Array, "B M V"]:
    """Dot products with a float32 embedding's rows, in x's dtype with float32 sums; gradients as in `look_up`."""
    return _tied_logits(x, embedding, group_gradients)[0]


def _tied_logits(x: jax.Array, embedding: jax.Array,
                 group_gradients: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    embedding = embedding.astype(x.dtype)
    return jnp.einsum("BMD,VD->BMV", x, embedding, preferred_element_type=jnp.float32), (x, embedding, group_gradients)


def _tied_logits_backward(kept: tuple[jax.Array, ...], gradient: jax.Array) -> tuple[jax.Array, None, jax.Array]:
    x, embedding, group_gradients = kept
    # Not einsum, which would convert the embedding to float32 first: a TPU's matrix unit takes both dtypes.
    back = jax.lax.dot_general(gradient, embedding, (((2,), (0,)), ((), ())), preferred_element_type=jnp.float32)
    return back.astype(x.dtype), None, _outer_products(gradient, x, len(group_gradients))


tied_logits.defvjp(_tied_logits, _tied_logits_backward)


def _row_groups() -> tuple[str | tuple[str, ...] | None, int]:
    """The mesh axes that rows are split over, and the number of groups of rows, G."""
    mesh = jax.sharding.get_abstract_mesh()
    spec: Any = None if mesh.empty else nn.logical_to_mesh_axes(("batch",))
    axes = None if spec is None else spec[0]
    names = () if axes is None else (axes,) if isinstance(axes, str) else axes
    return axes, math.prod(mesh.shape[name] for name in names)


def _grouped(x: jax.Array, groups: int) -> jax.Array:
    """[B, ...] -> [G, B / G, ...]."""
    return x.reshape(groups, -1, *x.shape[1:])


def _on_own_devices(group_gradients: jax.Array) -> jax.Array:
    """Keeps the gradient of each group [G, ...] on the devices that have its rows."""
    axes, groups = _row_groups()
    if groups == 1:
        return group_gradients
    rest = [PartitionSpec.UNCONSTRAINED] * (group_gradients.ndim - 1)
    return jax.lax.with_sharding_constraint(group_gradients, PartitionSpec(axes, *rest))


def _outer_products(a: jax.Array, b: jax.Array, groups: int) -> jax.Array:
    """Outer products summed over the rows of each group, in float32. [B, ..., I], [B, ..., J] -> [G, I, J]."""
    inner = tuple(range(1, a.ndim))
    return _on_own_devices(jax.lax.dot_general(_grouped(a, groups), _grouped(b, groups), ((inner, inner), ((0,), (0,))),
                                               preferred_element_type=jnp.float32))


def _sum_groups(group_gradients: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """The sum over groups, and so over devices, in `dtype`. [G, ...] -> [...] float32."""
    # Not jnp.sum, which would convert bfloat16 to float32 first.
    rounded = _on_own_devices(group_gradients).astype(dtype)
    return jax.lax.reduce(rounded, jnp.zeros((), dtype), jax.lax.add, (0,)).astype(jnp.float32)
