"""The compiler flags of launch/: the compilers accept all of them, and those for TPUs overlap collectives."""
import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

from spanbert_jax.planning.compiler.devices import environment
from spanbert_jax.planning.hardware import parse_topology

ROOT = pathlib.Path(__file__).resolve().parents[2]
# A chain of matrix products trained on four chips that share the rows out; compiled for TPUs, on a machine without.
TPU_STEP = """
import re
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

devices = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices
mesh = Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))
rows, everywhere = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())

def step(layers, x):
    def loss(layers):
        h = x
        for layer in layers:
            h = jnp.tanh(h @ layer.astype(jnp.bfloat16))
        return jnp.mean(h.astype(jnp.float32) ** 2)
    return [layer - gradient for layer, gradient in zip(layers, jax.grad(loss)(layers))]

layers = [jax.ShapeDtypeStruct((2048, 2048), jnp.float32)] * 2
x = jax.ShapeDtypeStruct((4 * 512, 2048), jnp.bfloat16)
program = jax.jit(step, in_shardings=(everywhere, rows), out_shardings=everywhere).lower(layers, x).compile().as_text()
print("fused", len(re.findall(r"calls=%async_collective_fusion", program)))
"""


def run(script, flags="/dev/null", **variables):
    """Runs a Python script in a shell that has sourced the flags."""
    return subprocess.run(["bash", "-euc", 'source "$0"; exec "$1" -c "$2"', flags, sys.executable, script], cwd=ROOT,
                          capture_output=True, text=True, env={**os.environ, **variables})


@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="needs the TPU compiler (pip install libtpu)")
def test_the_tpu_compiler_overlaps_the_sums_of_gradients_by_these_flags():
    variables = environment(parse_topology("v5e:2x2"))
    results = [run(TPU_STEP, flags, **variables) for flags in ("/dev/null", "launch/tpu_flags.sh")]
    assert [result.returncode for result in results] == [0, 0], results[1].stderr[-2000:]
    without, with_flags = (int(result.stdout.split()[-1]) for result in results)
    assert without == 0 and with_flags >= 1, "of two, the last one has nothing left to run beside"


def test_xla_accepts_the_gpu_flags():
    script = "import jax; print(jax.jit(lambda x: x + 1)(1))"
    result = run(script, "launch/gpu_flags.sh", JAX_PLATFORMS="cpu")
    assert (result.returncode, result.stdout) == (0, "2\n"), result.stderr[-2000:]
    refused = run(script, JAX_PLATFORMS="cpu", XLA_FLAGS="--xla_gpu_no_flag=1")
    assert refused.returncode and "Unknown flag" in refused.stderr, "else the test above says nothing"


@pytest.mark.parametrize("flags,variable", [("launch/tpu_flags.sh", "LIBTPU_INIT_ARGS"),
                                            ("launch/gpu_flags.sh", "XLA_FLAGS")])
def test_flags_that_are_set_already_come_last_and_take_precedence(flags, variable):
    script = f"import os; print(os.environ[{variable!r}])"
    ours = run(script, flags, **{variable: ""}).stdout.strip()
    assert all(word.startswith("--xla_") and "=" in word for word in ours.split())
    assert run(script, flags, **{variable: "--mine=1 --other=2"}).stdout.strip() == f"{ours} --mine=1 --other=2"


def test_other_variables_are_not_overwritten():
    script = "import os; print(os.environ['XLA_PYTHON_CLIENT_MEM_FRACTION'], os.environ['NCCL_DEBUG'])"
    result = run(script, "launch/gpu_flags.sh", XLA_PYTHON_CLIENT_MEM_FRACTION=".5", NCCL_DEBUG="INFO")
    assert result.stdout == ".5 INFO\n"
