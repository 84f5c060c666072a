"""Eight simulated devices for every test of this process; a test takes as many of them as it needs."""
import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
