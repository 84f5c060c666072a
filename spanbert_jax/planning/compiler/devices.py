"""The devices of a topology, which compilers describe without the hardware."""
import os
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from spanbert_jax.common.errors import UserError
from spanbert_jax.planning.hardware import CHIPS, GPU_MEMORY, Topology

# Chips whose two cores are one device.
_MEGACORE = ("v4",)


def environment(topology: Topology) -> dict[str, str]:
    """The environment variables of a subprocess that compiles for a topology, those of this process included."""
    variables = {"JAX_PLATFORMS": "cpu"}
    if topology.chip.platform == "cpu":
        variables["JAX_NUM_CPU_DEVICES"] = str(topology.chips)
    elif topology.chip.platform == "tpu":
        # libtpu compiles on a machine without TPUs, and in several processes at a time.
        variables |= {"TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": "v5litepod-4", "TPU_WORKER_ID": "0",
                      "TPU_WORKER_HOSTNAMES": "localhost", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    return {**os.environ, **variables}


def get_devices(topology: Topology) -> list[jax.Device]:
    """The devices of a topology, in a subprocess with its `environment`. Raises UserError if it is not supported."""
    if topology.chip.platform == "cpu":
        return jax.devices()
    try:
        return topologies.get_topology_desc(**_description(topology)).devices
    except Exception as error:  # compilers raise many types
        raise UserError(f"topology {topology}: the compiler does not support it ({' '.join(str(error).split())[:200]})"
                        f"; use one in which {topology.kind} is offered") from None


def _description(topology: Topology) -> dict[str, Any]:
    if topology.chip.platform == "gpu":
        hosts = -(-topology.chips // topology.chip.chips_per_host)
        return {"platform": "cuda", "topology_name": topology.kind, "target_config": _target(topology.kind),
                "topology": f"1x{hosts}x{topology.chips // hosts}"}
    shape = "x".join(map(str, topology.shape))
    return {"platform": "tpu", "topology_name": f"{topology.kind}:{shape}",
            **({"num_slices": topology.slices} if topology.slices > 1 else {}),
            **({"chip_config_name": "megacore"} if topology.kind in _MEGACORE else {}),
            # The host of a slice of one chip has one chip.
            **({"chips_per_host_bounds": (1, 1, 1)} if topology.chips == topology.slices else {})}


class _Gpu(NamedTuple):
    """What the compiler must know of a GPU: figures of NVIDIA's data sheets and programming guide, as CUDA reports."""
    capability: int  # major number of the compute capability
    cores: int  # streaming multiprocessors
    units: int  # for float32 in a core
    shared: int  # bytes of shared memory in a core; a block gets 1 KiB less
    cache: int  # bytes of the second-level cache
    clock: float  # in GHz


_GPUS = {"a100": _Gpu(8, 108, 64, 167_936, 41_943_040, 1.41),
         "h100": _Gpu(9, 132, 128, 233_472, 52_428_800, 1.98),
         "h200": _Gpu(9, 132, 128, 233_472, 52_428_800, 1.98),
         "b200": _Gpu(10, 148, 128, 233_472, 132_644_864, 1.965)}


def _target(kind: str) -> str:
    """A GPU in the compiler's format."""
    gpu = _GPUS[kind]
    return f"""
gpu_device_info {{
  cuda_compute_capability {{ major: {gpu.capability} minor: 0 }}
  threads_per_block_limit: 1024
  threads_per_warp: 32
  threads_per_core_limit: 2048
  core_count: {gpu.cores}
  fpus_per_core: {gpu.units}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: {gpu.shared - 1024}
  shared_memory_per_core: {gpu.shared}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  memory_bandwidth: {CHIPS[kind].bandwidth:.0f}
  l2_cache_size: {gpu.cache}
  clock_rate_ghz: {gpu.clock}
  device_memory_size: {GPU_MEMORY[kind]}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 8 patch: 0 }}
runtime_version {{ major: 12 minor: 8 patch: 0 }}
"""
