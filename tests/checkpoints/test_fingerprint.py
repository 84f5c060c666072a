"""Checksums computed on the devices, compared with their definition in NumPy."""
import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from spanbert_jax.checkpoints.fingerprint import difference, fingerprint
from tests.checkpoints.states import DTYPES, make_state, mesh_of, random_array


def definition(array: np.ndarray) -> int:
    """The sum of the bits of all elements times 1, 3, 5, ..., modulo 2^32, in Python integers."""
    width = array.dtype.itemsize
    content = array.tobytes()
    bits = [int.from_bytes(content[start:start + width], "little") for start in range(0, len(content), width)]
    return sum(value * (2 * index + 1) for index, value in enumerate(bits)) % 2 ** 32


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("shape", [(), (7,), (8, 5), (2, 3, 4), (0, 3)])
def test_checksum_equals_its_definition(dtype, shape):
    array = random_array(np.random.default_rng(1), shape, dtype)
    assert fingerprint({"x": jax.device_put(array)}) == {"x": definition(array)}


@pytest.mark.parametrize("mesh,spec", [
    ((2,), ("a",)), ((2,), (None, "a")), ((8,), ("a",)), ((8,), ()), ((2, 4), ("a", "b")), ((2, 4), ("b",)),
    ((2, 4), (("a", "b"),)), ((2, 2, 2), (("a", "c"), "b"))])
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_checksum_does_not_depend_on_sharding(mesh, spec, dtype):
    array = random_array(np.random.default_rng(2), (16, 8), dtype)
    placed = jax.device_put(array, NamedSharding(mesh_of(mesh), PartitionSpec(*spec)))
    assert fingerprint([placed]) == {"0": definition(array)}


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_every_flipped_bit_changes_the_checksum(dtype):
    array = random_array(np.random.default_rng(3), (3, 2), dtype)
    before, content = fingerprint([array]), bytearray(array.tobytes())
    bits = range(8 * len(content)) if array.dtype != bool else range(0, 8 * len(content), 8)
    for bit in bits:
        content[bit // 8] ^= 1 << bit % 8
        assert fingerprint([np.frombuffer(bytes(content), array.dtype).reshape(array.shape)]) != before
        content[bit // 8] ^= 1 << bit % 8


def test_swapped_elements_change_the_checksum():
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert fingerprint([array]) != fingerprint([array[::-1].copy()])


def test_a_difference_names_the_array():
    computed = fingerprint(make_state(5))
    assert set(computed) == {"step", "params/dense/kernel", "params/dense/bias", "params/flags", "opt_state/0/mu",
                          "opt_state/0/count", "opt_state/1/0"}
    assert difference(dict(computed, more=1), computed) is None
    for name in computed:
        assert difference(computed | {name: computed[name] ^ 1}, computed).startswith(f"{name}: ")
        assert difference({other: value for other, value in computed.items() if other != name},
                          computed).startswith(name)
    assert difference(None, computed) == "no checksums of its arrays are stored"
