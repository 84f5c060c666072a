"""Bytes of activations that a compiled program keeps from the forward pass for the backward pass."""
import re

from spanbert_jax.planning.compiler.hlo import BODY, Instruction, Program, array_bytes, search

# JAX writes this into the names of operations of a backward pass.
_BACKWARD = re.compile(r'op_name="[^"]*transpose\(')
# The instruction that makes an array, and the array's index in its result; -1 for a result that is not a tuple.
Buffer = tuple[str, int]


def activation_bytes(program: Program) -> int:
    """Bytes in HBM where the backward pass begins, of arrays made before that and used after it.

    Arguments of the step do not count. With gradient accumulation these are the bytes of one microbatch.
    """
    computations = {name for name, _, _ in program.runs(1)}
    return max((_live_bytes(program, name) for name in computations), default=0)


def _live_bytes(program: Program, computation: str) -> int:
    """Bytes that are live before the first backward operation of a computation; 0 if it has none."""
    lines = program.computations[computation]
    order = list(lines.values())
    # Small backward operations may be scheduled early; a loop, kernel or matrix product starts the pass.
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
            live |= {buffer: size for buffer, size in _buffers(program, lines, operand)
                     if buffer[0] in made_before and lines[buffer[0]].opcode not in ("parameter", "constant")}
    return sum(live.values())


def _buffers(program: Program, lines: dict[str, Instruction], name: str) -> list[tuple[Buffer, int]]:
    """The arrays that a name stands for, each with its bytes; aliases lead to the instruction that made them."""
    line = lines.get(name)
    if line is None:
        return []
    if line.opcode in ("bitcast", "copy-start", "copy-done", "slice-start", "optimization-barrier"):
        return _buffers(program, lines, line.operands[0])
    if line.opcode == "tuple":
        return [found for operand in line.operands for found in _buffers(program, lines, operand)]
    if line.opcode != "get-tuple-element":
        return [((name, -1), array_bytes(line.type, hbm_only=True))]
    index, source = int(search(r"index=(\d+)", line.text)), lines.get(line.operands[0])
    if source is not None and source.opcode == "while":
        initial = lines.get(source.operands[0])
        if initial is not None and initial.opcode == "tuple" and _is_loop_invariant(program, source, index):
            return _buffers(program, lines, initial.operands[index])
    if source is not None and source.opcode == "tuple":
        return _buffers(program, lines, source.operands[index])
    return [((line.operands[0], index), array_bytes(line.type, hbm_only=True))]


def _is_loop_invariant(program: Program, loop: Instruction, index: int) -> bool:
    """Whether a loop leaves the element `index` of its carried tuple unchanged."""
    body = program.computations[search(BODY, loop.text)]
    root = list(body.values())[-1]
    made = body.get(root.operands[index]) if root.opcode == "tuple" else None
    return (made is not None and made.opcode == "get-tuple-element" and search(r"index=(\d+)", made.text) == str(index)
            and body[made.operands[0]].opcode == "parameter")
