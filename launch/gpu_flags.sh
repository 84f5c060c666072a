# shellcheck shell=bash
# Compiler flags and variables for NVIDIA GPUs, to be sourced before the run starts: source launch/gpu_flags.sh
#
# Flags that are set in XLA_FLAGS already are appended and take precedence; other variables are not overwritten. XLA
# ends the process on an unknown flag: the tests run with all of these.

gpu_flags=(
  # Schedules a collective to start early and to be waited for late, with other work in between.
  --xla_gpu_enable_latency_hiding_scheduler=true
  # Sums gradients in chunks of up to 32 MiB: large enough for the full bandwidth, small enough that the first chunks
  # start while the layers below are still computed.
  --xla_gpu_all_reduce_combine_threshold_bytes=33554432
  # The same for gathering parameters and scattering gradients over the fsdp axis.
  --xla_gpu_all_gather_combine_threshold_bytes=33554432
  --xla_gpu_reduce_scatter_combine_threshold_bytes=33554432
  # With scanned layers (compute.layers), overlaps the collective of one layer with the matrix products of the next, as
  # with unrolled layers.
  --xla_gpu_enable_pipelined_all_gather=true
  --xla_gpu_enable_pipelined_all_reduce=true
  --xla_gpu_enable_pipelined_reduce_scatter=true
  # Unrolls that loop once, so that a layer's buffers are not copied before the next layer overwrites them.
  --xla_gpu_enable_while_loop_double_buffering=true
  # Collectives run before matrix products that are ready too, because other devices wait for them.
  --xla_gpu_enable_highest_priority_async_stream=true
)
export XLA_FLAGS="${gpu_flags[*]}${XLA_FLAGS:+ $XLA_FLAGS}"
unset gpu_flags

# By default JAX takes three quarters of the memory. The rest is for NCCL and the CUDA libraries.
export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}"
# Kernels that wait for each other's collectives must be queued in the order of their start.
export CUDA_DEVICE_MAX_CONNECTIONS="${CUDA_DEVICE_MAX_CONNECTIONS:-1}"
# Reports a failure of the network where it happens, not ten minutes later on another host.
export NCCL_DEBUG="${NCCL_DEBUG:-WARN}"
