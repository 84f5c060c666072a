"""Products and look-ups with parameters, and how the parameters' gradients are summed over the devices.

The gradient of a kernel or a table is a sum over rows, of which each device has its own. Left to itself the compiler
sums over the devices what comes out of a product, in the type and at the place it comes out. Here each device's rows
make a gradient of their own first, in float32; that is rounded to the type that is asked for, and then summed over the
devices in that type, once for each parameter.
"""
from __future__ import annotations

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def project(x: jax.Array, kernel: jax.Array, gradient_dtype: jnp.dtype) -> jax.Array:
    """A product with a float32 kernel, in the type of x. [B, ..., in], [in, out] -> [B, ..., out].

    Args:
      gradient_dtype: in which the kernel's gradient is summed over the devices.
    """
    return _project(x, kernel, gradient_dtype)[0]


def _project(x: jax.Array, kernel: jax.Array, gradient_dtype: jnp.dtype) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    # Rounded once, here: a TPU's compiler would fuse it to each product and round again for each of its tiles of rows.
    kernel = jax.lax.optimization_barrier(kernel.astype(x.dtype))
    return x @ kernel, (x, kernel)


def _project_backward(gradient_dtype: jnp.dtype, kept: tuple[jax.Array, ...],
                      gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    shares = _products_of_rows(x, gradient, _row_groups()[1])
    return jnp.einsum("...o,io->...i", gradient, kernel), _sum_of_shares(shares, gradient_dtype)


project.defvjp(_project, _project_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def per_group_gradients(table: jax.Array, gradient_dtype: jnp.dtype) -> jax.Array:
    """What the uses of a table hang their gradients on: zeros [G, V, D], for a table [V, D] and G groups of rows.

    The gradients of all uses are added up here, each group's by itself, before they are summed over the groups in
    `gradient_dtype` and become the table's.
    """
    return jnp.zeros((_row_groups()[1], *table.shape), jnp.float32)


per_group_gradients.defvjp(lambda table, gradient_dtype: (per_group_gradients(table, gradient_dtype), None),
                       lambda gradient_dtype, _, shares: (_sum_of_shares(shares, gradient_dtype),))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def look_up(table: jax.Array, shares: jax.Array, ids: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Rows of a float32 table in another type. [V, D], ids [B, ...] -> [B, ..., D]; ids past the table give NaN.

    Args:
      shares: of the table, from `per_group_gradients`; they take its gradient.
    """
    return jnp.take(table.astype(dtype), ids, axis=0)


def _look_up_backward(dtype: jnp.dtype, kept: tuple[jax.Array, ...],
                      gradient: jax.Array) -> tuple[None, jax.Array, None]:
    shares, ids = kept

    def add(ids: jax.Array, gradient: jax.Array) -> jax.Array:
        # In float32: some pieces occur so often that bfloat16 would lose what comes last.
        return jnp.zeros(shares.shape[1:], jnp.float32).at[ids].add(gradient.astype(jnp.float32))

    return None, _on_own_devices(jax.vmap(add)(_grouped(ids, len(shares)), _grouped(gradient, len(shares)))), None


look_up.defvjp(lambda table, shares, ids, dtype: (look_up(table, shares, ids, dtype), (shares, ids)), _look_up_backward)


@jax.custom_vjp
def tied_logits(x: jax.Array, table: jax.Array, shares: jax.Array) -> jax.Array:
    """Products of states with every row of a float32 table, in the type of x but summed in float32.

    [B, M, D], [V, D] -> [B, M, V] float32.

    Args:
      shares: of the table, from `per_group_gradients`; they take its gradient.
    """
    return _tied_logits(x, table, shares)[0]


def _tied_logits(x: jax.Array, table: jax.Array, shares: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    table = table.astype(x.dtype)
    return jnp.einsum("BMD,VD->BMV", x, table, preferred_element_type=jnp.float32), (x, table, shares)


def _tied_logits_backward(kept: tuple[jax.Array, ...], gradient: jax.Array) -> tuple[jax.Array, None, jax.Array]:
    x, table, shares = kept
    # Not einsum, which would widen the table first: a TPU's matrix unit takes both types.
    back = jax.lax.dot_general(gradient, table, (((2,), (0,)), ((), ())), preferred_element_type=jnp.float32)
    return back.astype(x.dtype), None, _products_of_rows(gradient, x, len(shares))


tied_logits.defvjp(_tied_logits, _tied_logits_backward)


def _row_groups() -> tuple[str | tuple[str, ...] | None, int]:
    """The mesh axes over which rows are split here, and how many groups of rows they make."""
    mesh = jax.sharding.get_abstract_mesh()
    spec: Any = None if mesh.empty else nn.logical_to_mesh_axes(("batch",))
    axes = None if spec is None else spec[0]
    names = () if axes is None else (axes,) if isinstance(axes, str) else axes
    return axes, math.prod(mesh.shape[name] for name in names)


def _grouped(x: jax.Array, groups: int) -> jax.Array:
    """[B, ...] -> [G, B / G, ...]."""
    return x.reshape(groups, -1, *x.shape[1:])


def _on_own_devices(shares: jax.Array) -> jax.Array:
    """Keeps each group's share [G, ...] on the devices that have its rows."""
    axes, groups = _row_groups()
    if groups == 1:
        return shares
    rest = [PartitionSpec.UNCONSTRAINED] * (shares.ndim - 1)
    return jax.lax.with_sharding_constraint(shares, PartitionSpec(axes, *rest))


def _products_of_rows(a: jax.Array, b: jax.Array, groups: int) -> jax.Array:
    """The sum over each group's rows of their outer products, in float32. [B, ..., I], [B, ..., J] -> [G, I, J]."""
    inner = tuple(range(1, a.ndim))
    return _on_own_devices(jax.lax.dot_general(_grouped(a, groups), _grouped(b, groups), ((inner, inner), ((0,), (0,))),
                                               preferred_element_type=jnp.float32))


def _sum_of_shares(shares: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """[G, ...] -> [...] float32, summed over the groups, and so over devices, in `dtype`."""
    # Not jnp.sum, which would widen bfloat16 first.
    rounded = _on_own_devices(shares).astype(dtype)
    return jax.lax.reduce(rounded, jnp.zeros((), dtype), jax.lax.add, (0,)).astype(jnp.float32)
