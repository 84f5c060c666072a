"""Parses the text of a program that XLA compiled: its instructions, how often each runs, and its collectives."""
import dataclasses
import math
import re
from collections.abc import Iterator

import numpy as np

# Bits of each type in the text.
_BITS = {"pred": 8, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "bf16": 16, "f16": 16, "s32": 32,
         "u32": 32, "f32": 32, "s64": 64, "u64": 64, "f64": 64, "c64": 64}
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

# Name and body of a computation, and the beginning of an instruction, which may have several lines.
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) [^\n]*-> [^\n]*\{\n(.*?)^\}$", re.MULTILINE | re.DOTALL)
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = ", re.MULTILINE)
# The opcode is the first word before a parenthesis outside of the type, whose layouts are in braces.
_OPCODE = re.compile(r"(?:^|[\s)}\]])([a-z][a-z0-9\-]*)\(")
_ARRAY = re.compile(r"\b(" + "|".join(_BITS) + r")\[([\d,]*)\](\{[^{}]*\})?")
# Computations of a while loop.
_CONDITION, BODY = r"condition=%?([\w.\-]+)", r"body=%?([\w.\-]+)"
_CYCLES = re.compile(r'"estimated_cycles":"?(\d+)')
_CALLS = re.compile(r"(?:calls|to_apply|body|condition|branch_computations)=(\{[^{}]*\}|%?[\w.\-]+)")
_GROUP_MESH = re.compile(r"replica_groups=mesh\[(.*?)\]\s*\{(.*?)\}")
_GROUP_IOTA = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_SLICE_TRANSFER = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
# For a permutation these are pairs (source, target).
_GROUP_LIST = re.compile(r"(?:replica_groups|source_target_pairs)=\{\{([\d,]*)\}")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation."""
    name: str
    type: str  # of the result, as written in the program
    opcode: str
    operands: tuple[str, ...]  # their names
    cycles: int | None  # the compiler's estimate for one run; None if it states none
    called: tuple[str, ...]  # names of the computations that the instruction runs
    text: str  # the whole line


@dataclasses.dataclass(frozen=True)
class Collective:
    """A collective operation."""
    kind: str  # one of `COLLECTIVES`
    bytes: int  # of its result on one device; of its operand for a reduce-scatter
    group: int  # number of devices that communicate with each other
    crosses_slices: bool  # whether these belong to several slices, or to several hosts of GPUs
    overlapped: bool  # whether other work runs at the same time
    runs: float  # in a step


class Program:
    """The computations of a compiled program."""

    def __init__(self, text: str):
        """Parses the text of `compiled.as_text()`."""
        self.computations: dict[str, dict[str, Instruction]] = {}
        self.entry = ""
        for entry, name, body in _COMPUTATION.findall(text):
            # Alternately the name of an instruction and the rest of it.
            parts = _INSTRUCTION.split(body)[1:]
            lines = map(_parse, parts[::2], parts[1::2])
            self.computations[name] = {line.name: line for line in lines if line}
            if entry:
                self.entry = name

    def runs(self, unknown_trips: float, computation: str = "", times: float = 1.0,
             ) -> Iterator[tuple[str, Instruction, float]]:
        """Every instruction that runs by itself, as (computation, instruction, runs); a fusion is one instruction.

        Args:
          unknown_trips: assumed iterations of a loop whose end is not a constant.
          computation: to start in; by default the entry of the program.
          times: runs of that computation.
        """
        name = computation or self.entry
        for instruction in self.computations[name].values():
            if instruction.opcode == "while":
                trips = self.trips(search(_CONDITION, instruction.text))
                total = times * (unknown_trips if trips is None else trips)
                yield from self.runs(unknown_trips, search(BODY, instruction.text), total)
            elif instruction.opcode in ("call", "conditional"):
                for called in instruction.called:
                    yield from self.runs(unknown_trips, called, times)
            else:
                yield name, instruction, times

    def trips(self, condition: str) -> int | None:
        """Iterations of a loop whose condition counts from 0 to a constant; None for any other condition."""
        compares = [line for line in self.computations[condition].values() if line.opcode == "compare"]
        constants = {line.name: int(found[1]) for line in self.computations[condition].values()
                     if line.opcode == "constant" and (found := re.search(r"constant\((-?\d+)\)", line.text))}
        if len(compares) != 1 or "direction=LT" not in compares[0].text:
            return None
        return constants.get(compares[0].operands[1])

    def inside(self, instruction: Instruction) -> Iterator[Instruction]:
        """All instructions of the computations that an instruction calls, at any depth."""
        for called in instruction.called:
            for inner in self.computations.get(called, {}).values():
                yield inner
                yield from self.inside(inner)

    def has_matrix_product(self, instruction: Instruction) -> bool:
        """Whether an instruction is or contains a matrix product, which the TPU compiler writes as a convolution."""
        return any(part.opcode in ("convolution", "dot") for part in (instruction, *self.inside(instruction)))

    def memory_bytes(self, computation: str, instruction: Instruction) -> int:
        """Bytes that an instruction reads from and writes to HBM; arrays in VMEM do not count."""
        known = self.computations[computation]
        types = [instruction.type, *(known[name].type for name in instruction.operands if name in known)]
        return sum(array_bytes(kind, hbm_only=True) for kind in types)

    def collectives(self, unknown_trips: float, slice_size: int, slices: int = 1) -> list[Collective]:
        """The collectives, each once even if the compiler split it into several instructions.

        Args:
          unknown_trips: see `runs`.
          slice_size: devices in a slice; devices of one slice have consecutive numbers.
          slices: number of slices. Between TPU slices the program sends data to the host, and such sends are
            collectives over all slices.
        """
        found: dict[str, Collective] = {}
        for computation, instruction, runs in self.runs(unknown_trips):
            if instruction.opcode == "send" and (kind := _SLICE_TRANSFER.search(instruction.text)):
                found[instruction.name] = Collective(
                    kind[1].lower().replace("_", "-"), array_bytes(instruction.type.split("[]", 1)[0]), slices, True,
                    self._overlaps_products(computation, instruction.name), runs)
            for part in (instruction, *self.inside(instruction)):
                if collective := _parse_collective(part, part is not instruction, slice_size, runs):
                    channel = re.search(r"channel_id=(\d+)", part.text)
                    found.setdefault(channel[1] if channel else part.name, collective)
        return list(found.values())

    def _overlaps_products(self, computation: str, sent: str) -> bool:
        """Whether a matrix product is scheduled between a send and the operation that waits for it."""
        lines = list(self.computations[computation].values())
        begin = next(index for index, line in enumerate(lines) if line.name == sent)
        end = next((index for index, line in enumerate(lines) if line.opcode == "send-done" and sent in line.operands),
                   begin)
        return any(self.has_matrix_product(line) for line in lines[begin:end])


def array_bytes(kind: str, hbm_only: bool = False) -> int:
    """Bytes of the arrays in a type; `hbm_only` ignores those in another memory, which S(1) and the like mark."""
    total = 0
    for dtype, shape, layout in _ARRAY.findall(kind):
        if hbm_only and re.search(r"S\([1-9]\)", layout):
            continue
        total += math.prod(int(size) for size in shape.split(",") if size) * _BITS[dtype] // 8
    return total


def _parse(name: str, rest: str) -> Instruction | None:
    rest = rest.replace("\n", "")
    bare = re.sub(r"\{[^{}]*\}", lambda found: "#" * len(found[0]), rest.split(", metadata=", 1)[0])
    opcode = _OPCODE.search(bare)
    if not opcode:
        return None
    close = bare.find(")", opcode.end())
    operands = re.findall(r"%([\w.\-]+)", rest[opcode.end():close])
    called = tuple(part.strip(" %") for found in _CALLS.findall(rest) for part in found.strip("{}").split(","))
    cycles = _CYCLES.search(rest)
    return Instruction(name, rest[:opcode.start(1)], opcode[1], tuple(operands), int(cycles[1]) if cycles else None,
                       called, rest)


def _parse_collective(instruction: Instruction, fused: bool, slice_size: int, runs: float) -> Collective | None:
    """The collective that an instruction is; None for any other instruction. One inside a fusion is overlapped."""
    kind = instruction.opcode.removesuffix("-start")
    if kind not in COLLECTIVES:
        return None
    group, asynchronous = _first_group(instruction.text), instruction.opcode.endswith("-start")
    size = array_bytes(instruction.type) * (len(group) if kind == "reduce-scatter" else 1)
    if asynchronous and instruction.type.startswith("("):
        size //= 2  # of (operand, result, ...), where the other elements are small
    crosses = len({member // slice_size for member in group}) > 1
    return Collective(kind, size, len(group), crosses, fused or asynchronous, runs)


def search(pattern: str, text: str) -> str:
    """The first group of a pattern that occurs in a text."""
    match = re.search(pattern, text)
    assert match, f"no {pattern} in {text[:200]}"
    return match[1]


def _first_group(text: str) -> tuple[int, ...]:
    """Numbers of the devices in the first group of a collective; (0,) if the text has no groups.

    Groups are written as a list, as the rows of a reshaped and transposed iota, or as axes of a mesh.
    """
    if match := _GROUP_MESH.search(text):
        sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", match[1])}
        axes = re.findall(r"'([^']+)'", match[2])
        devices = np.arange(math.prod(sizes.values())).reshape(*sizes.values())
        others = tuple(0 if name not in axes else slice(None) for name in sizes)
        return tuple(devices[others].ravel().tolist())
    if match := _GROUP_IOTA.search(text):
        shape = [int(size) for size in match[3].split(",")]
        devices = np.arange(math.prod(shape)).reshape(shape)
        if match[4]:
            devices = devices.transpose([int(axis) for axis in match[4].split(",")])
        return tuple(devices.reshape(int(match[1]), int(match[2]))[0].tolist())
    match = _GROUP_LIST.search(text)
    return tuple(int(member) for member in match[1].split(",")) if match and match[1] else (0,)
