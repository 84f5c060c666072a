"""The speed of this machine's CPU."""
import time

_SIZE, _TRIES = 1024, 8  # of the matrices; and how often they are multiplied, as other programs may run too


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
