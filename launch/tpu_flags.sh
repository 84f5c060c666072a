# shellcheck shell=bash
# Compiler flags for TPUs, to be sourced before the run starts: source launch/tpu_flags.sh
#
# They overlap the collectives of a step with its matrix products. Flags that are set in LIBTPU_INIT_ARGS already are
# appended and take precedence. libtpu ends the process on an unknown flag: the tests compile with all of these.

tpu_flags=(
  # Data-parallel steps sum the gradients of all layers in one all-reduce at the end, which nothing can overlap. In
  # chunks of 8 MiB, about one layer of base, they can start while the layers below are still computed.
  --xla_jf_crs_combiner_threshold_in_bytes=8388608
  # Splits an all-reduce into a start and a wait.
  --xla_enable_async_all_reduce=true
  # Lets such an all-reduce run inside the loop of a matrix product; the two flags only have an effect together.
  --xla_tpu_enable_async_collective_fusion_fuse_all_reduce=true
  # The next four are libtpu's defaults today, set so that other versions do the same. Gathers of parameters over the
  # fsdp axis run inside the matrix products of the layer before,
  --xla_tpu_enable_async_collective_fusion=true
  --xla_tpu_enable_async_collective_fusion_fuse_all_gather=true
  # over several of them if one is too short,
  --xla_tpu_enable_async_collective_fusion_multiple_steps=true
  # and while the core computes.
  --xla_tpu_overlap_compute_collective_tc=true
)
export LIBTPU_INIT_ARGS="${tpu_flags[*]}${LIBTPU_INIT_ARGS:+ $LIBTPU_INIT_ARGS}"
unset tpu_flags
