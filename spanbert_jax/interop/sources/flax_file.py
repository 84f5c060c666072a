"""The tensors of transformers' Flax models: flax_model.msgpack.

The file is a tree of maps in MessagePack. Its leaves are extensions of type 1, each an array (shape, dtype, bytes).
Arrays of more than a gigabyte are maps of a shape and of chunks. Flax reads all of it into memory, and msgpack makes
objects of whatever a file says; here the tree is walked in the file, and numbers are read when they are needed.
"""
import math
import pathlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from spanbert_jax.common.errors import UserError
from spanbert_jax.interop.sources.tensors import MAX_AXES, MAX_NAME, MAX_TENSORS, check_shapes

_LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
_CHUNKED = "__msgpack_chunked_array__"
_ARRAY = 1  # type of the extension
_DTYPES = {name: np.dtype(name) for name in (
    "float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")} | {
        "bfloat16": np.dtype(ml_dtypes.bfloat16)}
_MAX_DEPTH = 20


class _Array(NamedTuple):
    """Location of an array: shape, dtype, and the first byte of each of its chunks with their number of elements."""
    shape: tuple[int, ...]
    dtype: np.dtype
    chunks: tuple[tuple[int, int], ...]


class FlaxFile:
    """The tensors of a file by PyTorch's names and in its layouts. Implements the protocol `Tensors`."""

    def __init__(self, path: pathlib.Path) -> None:
        """Reads names and shapes. Raises UserError if the file is damaged."""
        self.path, self._arrays = path, dict[str, _Array]()
        self._transposed = set[str]()
        size = path.stat().st_size
        try:
            with open(path, "rb") as file:
                for (*modules, leaf), array in _Walk(file, size).arrays():
                    name = ".".join((*modules, _LEAVES.get(leaf, leaf)))
                    self._arrays[name] = array
                    if leaf == "kernel":
                        self._transposed.add(name)
        except (_Damaged, UnicodeDecodeError) as error:
            raise UserError(f"{path}: not a whole file of Flax parameters ({error}); fetch it again") from None
        self.shapes = {name: array.shape[::-1] if name in self._transposed else array.shape
                       for name, array in self._arrays.items()}
        check_shapes(path, self.shapes, size)

    def read(self, name: str) -> np.ndarray:
        """Returns a tensor, perhaps a view."""
        array = self._arrays[name]
        with open(self.path, "rb") as file:
            parts = [np.fromfile(file, array.dtype, count, offset=start - file.tell())
                     for start, count in array.chunks]
        flat = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if len(flat) != math.prod(array.shape):
            raise UserError(f"{self.path}: {name}: the file has become shorter; fetch it again")
        value = flat.reshape(array.shape)
        return value.T if name in self._transposed else value


class _Damaged(Exception):
    """What is wrong with a file."""


class _Head(NamedTuple):
    """The start of a value: its kind, and its number of entries or bytes, or the value of an integer."""
    kind: str
    size: int
    type: int = 0  # of an extension


# First byte -> kind, and bytes of the size that follows, or of the integer.
_SIZED = {0xc4: ("bytes", 1), 0xc5: ("bytes", 2), 0xc6: ("bytes", 4), 0xc7: ("extension", 1), 0xc8: ("extension", 2),
          0xc9: ("extension", 4), 0xcc: ("integer", 1), 0xcd: ("integer", 2), 0xce: ("integer", 4),
          0xcf: ("integer", 8), 0xd9: ("text", 1), 0xda: ("text", 2), 0xdb: ("text", 4), 0xdc: ("list", 2),
          0xdd: ("list", 4), 0xde: ("map", 2), 0xdf: ("map", 4)}
# Values that are left out -> their bytes after the first.
_OTHERS = {0xc0: 0, 0xc2: 0, 0xc3: 0, 0xca: 4, 0xcb: 8, 0xd0: 1, 0xd1: 2, 0xd2: 4, 0xd3: 8}


class _Walk:
    """Finds the arrays of a file without reading their numbers."""

    def __init__(self, file: BinaryIO, size: int):
        self._file, self._size, self._entries = file, size, 0

    def arrays(self) -> Iterator[tuple[tuple[str, ...], _Array]]:
        """Yields the keys and the location of each array. Raises _Damaged."""
        yield from self._tree(())
        if self._file.tell() != self._size:
            raise _Damaged("more than one value")

    def _tree(self, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], _Array]]:
        head = self._head()
        if head.kind == "map":
            if len(keys) == _MAX_DEPTH:
                raise _Damaged(f"nested more than {_MAX_DEPTH} levels deep")
            for number in range(head.size):
                key = self._text()
                if key == _CHUNKED and number == 0:
                    yield keys, self._chunked_array()
                    return
                yield from self._tree((*keys, key))
        elif head.kind == "extension" and head.type == _ARRAY:
            yield keys, self._array(head.size)
        elif head.kind in ("list", "text", "bytes"):
            raise _Damaged(f"a {head.kind} where an array is expected")
        elif head.kind == "extension":
            self._read(min(head.size, self._size))

    def _array(self, size: int) -> _Array:
        end = self._file.tell() + size
        self._expect("list", 3)
        rank = self._expect("list").size
        if rank > MAX_AXES:
            raise _Damaged(f"an array of {rank:,} axes")
        shape = tuple(self._expect("integer").size for _ in range(rank))
        name = self._text()
        if name not in _DTYPES:
            raise _Damaged(f"an array of {name}; allowed are {', '.join(_DTYPES)}")
        count, start = self._expect("bytes").size, self._file.tell()
        if count != math.prod(shape) * _DTYPES[name].itemsize or start + count != end or end > self._size:
            raise _Damaged(f"an array of {name} {list(shape)} in {count:,} bytes")
        self._file.seek(end)
        return _Array(shape, _DTYPES[name], ((start, math.prod(shape)),))

    def _chunked_array(self) -> _Array:
        """The array in a map of which the first key was read."""
        self._head()  # true
        shape = []
        for _ in range(self._named("shape")):
            self._text()
            shape.append(self._expect("integer").size)
        chunks = []
        for _ in range(self._named("chunks")):
            self._text()
            chunks.append(self._array(self._expect("extension").size))
        if len(shape) > MAX_AXES or len({chunk.dtype for chunk in chunks}) != 1:
            raise _Damaged("an array of other chunks than Flax writes")
        return _Array(tuple(shape), chunks[0].dtype, tuple(place for chunk in chunks for place in chunk.chunks))

    def _named(self, key: str) -> int:
        """The number of entries of a map under a key."""
        if self._text() != key:
            raise _Damaged(f"an array without {key}")
        return self._expect("map").size

    def _text(self) -> str:
        head = self._head()
        if head.kind not in ("text", "bytes") or head.size > MAX_NAME:
            raise _Damaged(f"a {head.kind} of {head.size:,} where a name is expected; it has {MAX_NAME} bytes at most")
        return self._read(head.size).decode()

    def _expect(self, kind: str, size: int | None = None) -> _Head:
        head = self._head()
        if head.kind != kind or size not in (None, head.size):
            raise _Damaged(f"a {head.kind} where a {kind} is expected")
        return head

    def _head(self) -> _Head:
        self._entries += 1
        if self._entries > 10 * MAX_TENSORS:
            raise _Damaged(f"more than {10 * MAX_TENSORS:,} values")
        first = self._read(1)[0]
        if first < 0x80:
            return _Head("integer", first)
        if first < 0xc0:
            kind, start = ("map", 0x80) if first < 0x90 else ("list", 0x90) if first < 0xa0 else ("text", 0xa0)
            return _Head(kind, first - start)
        if first in _OTHERS or first >= 0xe0:
            self._read(_OTHERS.get(first, 0))
            return _Head("number", 0)
        if 0xd4 <= first <= 0xd8:
            return _Head("extension", 1 << (first - 0xd4), self._read(1)[0])
        if first not in _SIZED:
            raise _Damaged(f"no value begins with the byte {first:#x}")
        kind, width = _SIZED[first]
        size = int.from_bytes(self._read(width), "big")
        return _Head(kind, size, self._read(1)[0] if kind == "extension" else 0)

    def _read(self, size: int) -> bytes:
        content = self._file.read(size)
        if len(content) != size:
            raise _Damaged("it ends early")
        return content
