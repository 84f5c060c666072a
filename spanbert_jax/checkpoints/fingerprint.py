"""Checksums of arrays where they live, so that damage before the disk and behind it is seen."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

_UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


def array_name(path: tuple[Any, ...]) -> str:
    """The name of an array in a tree, such as params/encoder/layers/attention/query/kernel."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def fingerprint(tree: Any) -> dict[str, int]:
    """A 32-bit checksum of each array of a tree, by its name.

    The bits of every element, as an unsigned number, times an odd weight that its position gives, summed modulo 2^32.
    Any flipped bit changes it, as does any exchange of two elements that differ; it is the same however the array is
    sharded and on however many processes, since such sums have no rounding. Every process must call.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    # One after the other: CPUs hold the products of one array at a time, and simulated devices run one collective.
    return {array_name(path): int(_checksum(leaf)) for path, leaf in leaves}


def difference(stored: Any, taken: Mapping[str, int]) -> str | None:
    """The first array whose checksum was another when it was saved, or None.

    Args:
      stored: what a checkpoint says its checksums are; more arrays than were taken may be in it.
      taken: from its arrays.
    """
    if not isinstance(stored, dict):
        return "no checksums of its arrays are stored"
    for name, value in sorted(taken.items()):
        if stored.get(name) != value:
            return f"{name}: its values are not those that were saved"
    return None


@jax.jit
def _checksum(array: jax.Array) -> jax.Array:
    """[] uint32 of an array, in one reduction, into which accelerators fuse all of it."""
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):  # which some optimisers keep
        array = jax.random.key_data(array)
    if array.dtype == jnp.bool_:
        array = array.astype(jnp.uint8)
    bits = jax.lax.bitcast_convert_type(array, _UNSIGNED[array.dtype.itemsize]).astype(jnp.uint32)
    index, stride = jnp.zeros(array.shape, jnp.uint32), 1
    for axis in reversed(range(array.ndim)):
        index += jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis) * jnp.uint32(stride % 2 ** 32)
        stride *= array.shape[axis]
    return jnp.sum(bits * (2 * index + 1), dtype=jnp.uint32)
