"""What a kernel takes, which the compiler does not note in a program: the length of its schedule, from a dump of it.

A small program of the attention of one network is compiled with the compiler told to write down what it does. A kernel
is straight code run once for each step of its grid, and an instruction bundle takes a cycle.
"""
from __future__ import annotations

import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from spanbert_jax.model.attention import AttentionInputs, AttentionSpec, get_backend
from spanbert_jax.planning.compiler.steps import kernel_name

# The most even: both cores of a chip that has two get as many.
ROWS, HEADS = 2, 2
_ENTERING_AND_LEAVING = 2  # steps of the pipeline besides those of the grid
_ANALYSIS = "schedule-analysis_final_bundles"


def compile_attention(name: str, length: int, spec: AttentionSpec, device: jax.Device) -> None:
    """Compiles one attention, forward and backward, for one device that need not be there.

    Args:
      name: of the backend, a kernel.
      length: S.
    """
    mesh = Mesh(np.array([device]), ("one",))
    wide = jax.ShapeDtypeStruct((ROWS, length, HEADS * spec.head_width), jnp.bfloat16)
    backend = get_backend(name)
    projections = jax.eval_shape(lambda *parts: backend.arrange(parts), wide, wide, wide)
    segments = jax.ShapeDtypeStruct((ROWS, length), jnp.uint8)
    seeds = jax.ShapeDtypeStruct((ROWS, HEADS, 2), jnp.uint32) if spec.dropout else None

    def both(projections: Any, segments: jax.Array, seeds: Any, gradient: jax.Array) -> Any:
        context, back = jax.vjp(lambda arrays: backend.attend(AttentionInputs(arrays, segments, seeds), spec),
                                projections)
        return context, back(gradient)

    spread = jax.shard_map(both, mesh=mesh, in_specs=PartitionSpec(), out_specs=PartitionSpec(), check_vma=False)
    with jax.set_mesh(mesh):
        jax.jit(spread).lower(projections, segments, seeds, wide).compile()


def kernel_cycles(dump: pathlib.Path) -> dict[str, float]:
    """Cycles of each kernel for one row and head, from what the compiler has written of `compile_attention`.

    Args:
      dump: the folder given to it as --xla_jf_dump_to, along with --xla_jf_dump_llo_text.
    """
    cycles: dict[str, float] = {}
    for analysis in dump.glob(f"*{_ANALYSIS}*"):
        text = analysis.read_text(encoding="utf-8", errors="replace")
        if name := kernel_name(text):
            bundles = int(re.search(r"total scheduled bundles:\s*(\d+)", text)[1])
            number, code = analysis.name.split("-", 1)[0], analysis.name.split(f"-{_ANALYSIS}")[0].rsplit("-", 1)[0]
            final, = (path for path in dump.glob(f"{number}-*-final_bundles*")
                      if path.name.startswith(code) and _ANALYSIS not in path.name)
            exits = re.findall(r"(\d+) /\* loop exit test", final.read_text(encoding="utf-8", errors="replace"))
            steps = max(int(count) for count in exits) - _ENTERING_AND_LEAVING if exits else 1
            # With some flags the compiler writes of pieces of a kernel by themselves; all of it is the longest.
            cycles[name] = max(cycles.get(name, 0.0), bundles * steps / (ROWS * HEADS))
    return cycles
