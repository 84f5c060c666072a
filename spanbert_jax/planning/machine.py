"""This machine: its memory, and the speed of its CPU."""
import os
import time

_SIZE, _TRIES = 1024, 8  # of the matrices; and how often they are multiplied, as other programs may run too


def memory_bytes() -> int:
    """Bytes of main memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def measure_flops() -> float:
    """Operations per second of a matrix product in float32 on all cores, measured in a tenth of a second."""
    import jax
    import jax.numpy as jnp
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        matrix = jnp.ones((_SIZE, _SIZE), jnp.float32)
        multiply = jax.jit(jnp.matmul)
        jax.block_until_ready(multiply(matrix, matrix))
        seconds = []
        for _ in range(_TRIES):
            began = time.perf_counter()
            jax.block_until_ready(multiply(matrix, matrix))
            seconds.append(time.perf_counter() - began)
    return 2 * _SIZE**3 / min(seconds)
