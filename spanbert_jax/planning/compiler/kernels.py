"""Cycles of the attention kernels, which a compiled program does not state, from a dump of their schedule.

A small program with one attention layer is compiled with flags that make the compiler dump the schedule. A kernel is
straight-line code that runs once for each step of its grid, and an instruction bundle takes one cycle.
"""
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from spanbert_jax.model.attention import AttentionInputs, AttentionSpec, get_backend
from spanbert_jax.planning.compiler.hlo import search
from spanbert_jax.planning.compiler.steps import kernel_name

# Even numbers: both cores of a chip with two get the same number.
ROWS, HEADS = 2, 2
_PIPELINE_STEPS = 2  # steps that fill and drain the pipeline, besides those of the grid
_ANALYSIS = "schedule-analysis_final_bundles"


def compile_attention(name: str, length: int, spec: AttentionSpec, rotary: bool, device: jax.Device) -> None:
    """Compiles the forward and backward pass of one attention layer for one device, which may be absent.

    Args:
      name: of the attention backend, one with a kernel.
      length: tokens in a row, S.
      rotary: whether positions are rotary.
    """
    mesh = Mesh(np.array([device]), ("one",))
    wide = jax.ShapeDtypeStruct((ROWS, length, HEADS * spec.head_width), jnp.bfloat16)
    backend = get_backend(name)
    projections = jax.eval_shape(lambda *parts: backend.arrange(parts), wide, wide, wide)
    segments: Any = jax.ShapeDtypeStruct((ROWS, length), jnp.uint8)
    seeds: Any = jax.ShapeDtypeStruct((ROWS, HEADS, 2), jnp.uint32) if spec.dropout else None
    angles: Any = jax.ShapeDtypeStruct((ROWS, length, spec.head_width // 2), jnp.float32)
    inputs = AttentionInputs(projections, segments, seeds, (angles, angles) if rotary else None)

    def forward_and_backward(inputs: AttentionInputs, gradient: jax.Array) -> Any:
        context, backward = jax.vjp(lambda arrays: backend.attend(inputs._replace(projections=arrays), spec),
                                    inputs.projections)
        return context, backward(gradient)

    sharded = jax.shard_map(forward_and_backward, mesh=mesh, in_specs=PartitionSpec(), out_specs=PartitionSpec(),
                            check_vma=False)
    with jax.set_mesh(mesh):
        jax.jit(sharded).lower(inputs, wide).compile()


def kernel_cycles(dump: pathlib.Path) -> dict[str, float]:
    """Cycles of each kernel for one row and head, from the folder that `compile_attention` dumped its schedule to."""
    cycles: dict[str, float] = {}
    for analysis in dump.glob(f"*{_ANALYSIS}*"):
        text = analysis.read_text(encoding="utf-8", errors="replace")
        if name := kernel_name(text):
            bundles = int(search(r"total scheduled bundles:\s*(\d+)", text))
            number, code = analysis.name.split("-", 1)[0], analysis.name.split(f"-{_ANALYSIS}")[0].rsplit("-", 1)[0]
            final, = (path for path in dump.glob(f"{number}-*-final_bundles*")
                      if path.name.startswith(code) and _ANALYSIS not in path.name)
            exits = re.findall(r"(\d+) /\* loop exit test", final.read_text(encoding="utf-8", errors="replace"))
            steps = max(int(count) for count in exits) - _PIPELINE_STEPS if exits else 1
            # With some flags there are dumps of parts of a kernel too; the whole kernel is the longest.
            cycles[name] = max(cycles.get(name, 0.0), bundles * steps / (ROWS * HEADS))
    return cycles
