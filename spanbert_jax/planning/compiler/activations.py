"""What a compiled program keeps from the forward pass for the backward pass."""
from __future__ import annotations

import re

from spanbert_jax.planning.compiler.hlo import Instruction, Program, array_bytes, loop_parts

# What differentiation writes into the name of an operation of a backward pass.
_BACKWARD = re.compile(r'op_name="[^"]*transpose\(')
# An element of an instruction's result, counted from 0; -1 for a result that is no tuple.
Buffer = tuple[str, int]


def activation_bytes(program: Program) -> int:
    """Bytes of what lies in HBM where the backward pass begins: made before it, and needed in it or after it.

    The arguments of the step do not count. Of a batch that is computed in parts it is one part's.
    """
    computations = {name for name, _, _ in program.runs(1)}
    return max((_live_bytes(program, name) for name in computations), default=0)


def _live_bytes(program: Program, computation: str) -> int:
    """Bytes live in a computation where its first operation of a backward pass begins; 0 if it has none."""
    lines = program.computations[computation]
    order = list(lines.values())
    # Operations that are scheduled ahead of the products that they belong to do not begin it.
    begin = next((index for index, line in enumerate(order) if _BACKWARD.search(line.text) and (
        line.opcode in ("while", "custom-call") or program.has_matrix_product(line))), None)
    if begin is None:
        return 0
    made_before = {line.name for line in order[:begin]}
    live: dict[Buffer, int] = {}
    for line in order[begin:]:
        if line.opcode in ("tuple", "get-tuple-element", "bitcast"):
            continue
        for operand in line.operands:
            for buffer, size in _buffers(program, lines, operand):
                if buffer[0] in made_before and lines[buffer[0]].opcode not in ("parameter", "constant"):
                    live[buffer] = size
    return sum(live.values())


def _buffers(program: Program, lines: dict[str, Instruction], name: str) -> list[tuple[Buffer, int]]:
    """The arrays behind a name, each with its bytes: an alias is followed to what made it."""
    line = lines.get(name)
    if line is None:
        return []
    if line.opcode in ("bitcast", "copy-start", "copy-done", "slice-start", "optimization-barrier"):
        return _buffers(program, lines, line.operands[0])
    if line.opcode == "tuple":
        return [found for operand in line.operands for found in _buffers(program, lines, operand)]
    if line.opcode != "get-tuple-element":
        return [((name, -1), array_bytes(line.type, hbm_only=True))]
    index, source = int(re.search(r"index=(\d+)", line.text)[1]), lines.get(line.operands[0])
    if source is not None and source.opcode == "while":
        kept = _passed_through(program, source, index)
        begin = lines.get(source.operands[0])
        if kept and begin is not None and begin.opcode == "tuple":
            return _buffers(program, lines, begin.operands[index])
    if source is not None and source.opcode == "tuple":
        return _buffers(program, lines, source.operands[index])
    return [((line.operands[0], index), array_bytes(line.type, hbm_only=True))]


def _passed_through(program: Program, loop: Instruction, index: int) -> bool:
    """Whether a loop leaves an element of what it carries as it was."""
    body = program.computations[loop_parts(loop)[1]]
    root = list(body.values())[-1]
    made = body.get(root.operands[index]) if root.opcode == "tuple" else None
    return made is not None and made.opcode == "get-tuple-element" and re.search(
        r"index=(\d+)", made.text)[1] == str(index) and body[made.operands[0]].opcode == "parameter"
