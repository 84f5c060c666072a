"""Damage to files, for tests of what notices it."""
import pathlib


def flip_bit(path: pathlib.Path, bit: int) -> None:
    """Flips one bit of a file."""
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
