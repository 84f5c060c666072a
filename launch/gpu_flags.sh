# shellcheck shell=bash
# Compiler flags and variables for NVIDIA GPUs, to be sourced before the run starts: source launch/gpu_flags.sh
#
# What is set already in XLA_FLAGS goes behind, where it wins; other variables are left as they are. XLA ends the process
# on a flag it does not know: the tests run with every one of these.

gpu_flags=(
  # Orders the operations of a step so that a collective is started early and waited for late, with work between.
  --xla_gpu_enable_latency_hiding_scheduler=true
  # Sums gradients in pieces of up to 32 MiB: large
  # enough for the full bandwidth, small enough that the first start while the layers below are still computed.
  --xla_gpu_all_reduce_combine_threshold_bytes=33554432
  # The same for parameters that are gathered, and gradients that are scattered, over the axis fsdp.
  --xla_gpu_all_gather_combine_threshold_bytes=33554432
  --xla_gpu_reduce_scatter_combine_threshold_bytes=33554432
  # With scanned layers (compute.layers) the collective of one layer runs during the matrix products of the next, as it
  # does with unrolled ones.
  --xla_gpu_enable_pipelined_all_gather=true
  --xla_gpu_enable_pipelined_all_reduce=true
  --xla_gpu_enable_pipelined_reduce_scatter=true
  # Unrolls that loop once, so that a layer's buffers need not be copied before the next may overwrite them.
  --xla_gpu_enable_while_loop_double_buffering=true
  # Collectives go before matrix products where both wait for the device: others are waiting for them.
  --xla_gpu_enable_highest_priority_async_stream=true
)
export XLA_FLAGS="${gpu_flags[*]}${XLA_FLAGS:+ $XLA_FLAGS}"
unset gpu_flags

# JAX takes three quarters of the memory unless told otherwise. The rest stays for NCCL and the CUDA libraries.
export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}"
# Kernels that wait for each other's collectives must be queued in the order in which they were started.
export CUDA_DEVICE_MAX_CONNECTIONS="${CUDA_DEVICE_MAX_CONNECTIONS:-1}"
# A failure of the network is told where it happens, not ten minutes later on another host.
export NCCL_DEBUG="${NCCL_DEBUG:-WARN}"
