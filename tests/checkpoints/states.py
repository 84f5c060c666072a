"""Small states of random numbers."""
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from spanbert_jax.checkpoints import Checkpointer

DTYPES = (jnp.float32, jnp.bfloat16, jnp.int32, jnp.uint32, jnp.bool_)


@flax.struct.dataclass
class State:
    """Like a training state, with every dtype that occurs."""
    step: jax.Array
    params: Any
    opt_state: Any


def mesh_of(shape: tuple[int, ...]) -> jax.sharding.Mesh:
    """Returns a mesh with axes a, b, ... over the first devices."""
    return jax.make_mesh(shape, tuple("abc"[:len(shape)]), axis_types=(AxisType.Auto,) * len(shape),
                         devices=jax.devices()[:int(np.prod(shape))])


def random_array(random: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Returns an array of random bits, NaNs included."""
    if dtype == jnp.bool_:
        return random.integers(0, 2, shape).astype(bool)
    width = np.dtype(dtype).itemsize
    return np.frombuffer(random.bytes(int(np.prod(shape)) * width), np.dtype(dtype)).reshape(shape)


def make_state(seed: int, devices: int = 1, rows: int = 8) -> State:
    """Returns a state on some devices, its matrices sharded by rows."""
    random, mesh = np.random.default_rng(seed), mesh_of((devices,))
    split, whole = NamedSharding(mesh, PartitionSpec("a")), NamedSharding(mesh, PartitionSpec())

    def array(*shape: int, dtype: Any = jnp.float32) -> jax.Array:
        values = random_array(random, shape, dtype)
        return jax.make_array_from_callback(shape, split if len(shape) > 1 else whole, lambda index: values[index])

    params = {"dense": {"kernel": array(rows, 5), "bias": array(5, dtype=jnp.bfloat16)},
              "flags": array(3, dtype=jnp.bool_)}
    opt_state = ({"mu": array(rows, 5), "count": array(dtype=jnp.int32)}, [array(4, dtype=jnp.uint32)])
    return State(jax.device_put(np.int32(seed), whole), params, opt_state)


def abstract_of(state: Any) -> Any:
    """Returns shapes, dtypes and shardings."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)


def assert_same_bits(got: Any, expected: Any) -> None:
    """Asserts that two states are equal, NaNs included."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected)):
        assert one.dtype == other.dtype and np.asarray(one).tobytes() == np.asarray(other).tobytes()


def save_steps(workdir: Any, steps: list[int], **options: Any) -> None:
    """Saves states with the steps as seeds."""
    with Checkpointer(workdir, keep=len(steps), **options) as checkpointer:
        for step in steps:
            checkpointer.save(step, make_state(step), {"config": {"of": step}})
        checkpointer.wait()


def accept_any(step: int, metadata: dict[str, Any]) -> None:
    """A check that accepts every checkpoint."""
