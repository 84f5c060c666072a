"""Checksums of arrays, computed on the devices, which also reveal damage before the disk was written."""
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

_UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


def array_name(path: tuple[Any, ...]) -> str:
    """Returns the name of an array in a tree, such as params/encoder/layers/attention/query/kernel."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def fingerprint(tree: Any) -> dict[str, int]:
    """Returns a 32-bit checksum of each array of a tree, by array name.

    The bits of each element, as an unsigned number, are multiplied by 2 * index + 1, and summed modulo 2^32. Every
    flipped bit and every swap of two different elements changes it. It does not depend on the sharding or the number of
    processes, because integer sums have no rounding. Every process must call this.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    # One by one: CPUs then hold the products of one array, and simulated devices run one collective at a time.
    return {array_name(path): int(_checksum(leaf)) for path, leaf in leaves}


def difference(stored: Any, computed: Mapping[str, int]) -> str | None:
    """Returns a message about the first computed checksum that differs from the stored ones, or None."""
    if not isinstance(stored, dict):
        return "no checksums of its arrays are stored"
    for name, value in sorted(computed.items()):
        if stored.get(name) != value:
            return f"{name}: its values are not those that were saved"
    return None


@jax.jit
def _checksum(array: jax.Array) -> jax.Array:
    """Returns [] uint32, by one reduction into which accelerators fuse the whole computation."""
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):  # kept by some optimizers
        array = jax.random.key_data(array)
    if array.dtype == jnp.bool_:
        array = array.astype(jnp.uint8)
    bits = jax.lax.bitcast_convert_type(array, _UNSIGNED[array.dtype.itemsize]).astype(jnp.uint32)
    index, stride = jnp.zeros(array.shape, jnp.uint32), 1
    for axis in reversed(range(array.ndim)):
        index += jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis) * jnp.uint32(stride % 2 ** 32)
        stride *= array.shape[axis]
    return jnp.sum(bits * (2 * index + 1), dtype=jnp.uint32)
