# shellcheck shell=bash
# Compiler flags for TPUs, to be sourced before the run starts: source launch/tpu_flags.sh
#
# They have the collectives of a step run beside its matrix products. What is set in LIBTPU_INIT_ARGS already goes
# behind, where it wins. libtpu ends the process on a flag it does not know: the tests compile with every one of these.

tpu_flags=(
  # Data parallel steps sum the gradients of all layers in one all-reduce at the end, which nothing is left to hide.
  # In pieces of 8 MiB, about a layer of base each, they can start while the layers below are still computed.
  --xla_jf_crs_combiner_threshold_in_bytes=8388608
  # Makes an all-reduce something that is started and waited for, not one long operation.
  --xla_enable_async_all_reduce=true
  # Lets such an all-reduce run inside the loop of a matrix product; only both together have an effect.
  --xla_tpu_enable_async_collective_fusion_fuse_all_reduce=true
  # The next four are what libtpu does by default today; written down so that another version does the same. Gathers of
  # parameters over the axis fsdp run inside the matrix products of the layer before,
  --xla_tpu_enable_async_collective_fusion=true
  --xla_tpu_enable_async_collective_fusion_fuse_all_gather=true
  # over several of them where one is too short,
  --xla_tpu_enable_async_collective_fusion_multiple_steps=true
  # and while the core computes.
  --xla_tpu_overlap_compute_collective_tc=true
)
export LIBTPU_INIT_ARGS="${tpu_flags[*]}${LIBTPU_INIT_ARGS:+ $LIBTPU_INIT_ARGS}"
unset tpu_flags
