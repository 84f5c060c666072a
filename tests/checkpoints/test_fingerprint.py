"""Checksums taken on the devices against their definition in numpy."""
import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from spanbert_jax.checkpoints.fingerprint import difference, fingerprint
from tests.checkpoints.states import DTYPES, make_state, mesh_of, random_array


def definition(array: np.ndarray) -> int:
    """The sum over all elements of their bits times 1, 3, 5, ..., modulo 2^32, in Python's own numbers."""
    width = array.dtype.itemsize
    content = array.tobytes()
    bits = [int.from_bytes(content[start:start + width], "little") for start in range(0, len(content), width)]
    return sum(value * (2 * index + 1) for index, value in enumerate(bits)) % 2 ** 32


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("shape", [(), (7,), (8, 5), (2, 3, 4), (0, 3)])
def test_it_is_what_it_says(dtype, shape):
    array = random_array(np.random.default_rng(1), shape, dtype)
    assert fingerprint({"x": jax.device_put(array)}) == {"x": definition(array)}


@pytest.mark.parametrize("mesh,spec", [
    ((2,), ("a",)), ((2,), (None, "a")), ((8,), ("a",)), ((8,), ()), ((2, 4), ("a", "b")), ((2, 4), ("b",)),
    ((2, 4), (("a", "b"),)), ((2, 2, 2), (("a", "c"), "b"))])
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_it_is_the_same_however_an_array_lies(mesh, spec, dtype):
    array = random_array(np.random.default_rng(2), (16, 8), dtype)
    placed = jax.device_put(array, NamedSharding(mesh_of(mesh), PartitionSpec(*spec)))
    assert fingerprint([placed]) == {"0": definition(array)}


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_any_flipped_bit_changes_it(dtype):
    array = random_array(np.random.default_rng(3), (3, 2), dtype)
    before, content = fingerprint([array]), bytearray(array.tobytes())
    bits = range(8 * len(content)) if array.dtype != bool else range(0, 8 * len(content), 8)
    for bit in bits:
        content[bit // 8] ^= 1 << bit % 8
        assert fingerprint([np.frombuffer(bytes(content), array.dtype).reshape(array.shape)]) != before
        content[bit // 8] ^= 1 << bit % 8


def test_exchanged_elements_change_it():
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert fingerprint([array]) != fingerprint([array[::-1].copy()])


def test_a_difference_names_the_array():
    taken = fingerprint(make_state(5))
    assert set(taken) == {"step", "params/dense/kernel", "params/dense/bias", "params/flags", "opt_state/0/mu",
                          "opt_state/0/count", "opt_state/1/0"}
    assert difference(dict(taken, more=1), taken) is None
    for name in taken:
        assert difference(taken | {name: taken[name] ^ 1}, taken).startswith(f"{name}: ")
        assert difference({other: value for other, value in taken.items() if other != name}, taken).startswith(name)
    assert difference(None, taken) == "no checksums of its arrays are stored"
