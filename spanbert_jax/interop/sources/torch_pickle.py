"""Reads PyTorch's weight files without PyTorch, and without running code that a pickle asks for.

Two layouts: a zip (PyTorch 1.6 and later) of `data.pkl` and the bytes of each storage, uncompressed; and, before that,
pickles one after another (a magic number, a version, the writer's system, the object, the storages' keys) followed by
each storage's count and bytes. A tensor is an offset, a shape and strides over a storage. None of them is trusted.
"""
import argparse
import collections
import io
import os
import pathlib
import pickle
import pickletools
import struct
import zipfile
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

NOT_TORCH = "it is damaged or not a PyTorch weight file; fetch it again, or give one that torch.save wrote"
_ZIP_START, _PICKLE_START = b"PK\x03\x04", b"\x80"
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_MAGIC, _VERSION = 0x1950a86a20f9469cfc6c, 1001
_DTYPES = {
    "FloatStorage": np.dtype(np.float32), "DoubleStorage": np.dtype(np.float64), "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16), "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32), "ShortStorage": np.dtype(np.int16), "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8), "BoolStorage": np.dtype(np.bool_)}


class Unreadable(Exception):
    """Why a file cannot be read and what to do, in one line without its name."""


class Storage(NamedTuple):
    """An array of numbers that tensors share: PyTorch's class, key in the file, and number of elements."""
    kind: str
    key: str
    count: int  # type: ignore[assignment]  # hides tuple.count


class StoredTensor(NamedTuple):
    """A tensor as described in a pickle, unchecked; offset and strides count elements of the storage."""
    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Place(NamedTuple):
    """Location of a tensor, checked against the file: its first byte, and its number of elements from first to last."""
    start: int
    count: int  # type: ignore[assignment]  # hides tuple.count
    dtype: np.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def load(path: pathlib.Path) -> tuple[Any, dict[str, tuple[int, int]]]:
    """Returns the object of a file, with `StoredTensor`s, and the first byte and the size of each storage.

    Raises Unreadable for a known problem. A damaged pickle may raise any other exception as well.
    """
    return _load_zip(path) if is_zip(path) else _load_legacy(path)


def locate(name: str, tensor: StoredTensor, storages: dict[str, tuple[int, int]]) -> Place:
    """Returns the place of a tensor. Raises Unreadable unless it is inside its storage, and that inside the file."""
    storage, offset, shape, strides = tensor
    start, size = storages.get(storage.key, (0, 0))
    dtype = _DTYPES[storage.kind]
    if all(type(number) is int and number >= 0 for number in (storage.count, offset, *shape, *strides)):
        count = 0 if 0 in shape else 1 + sum((length - 1) * stride for length, stride in zip(shape, strides))
        if len(shape) == len(strides) and offset + count <= storage.count and storage.count * dtype.itemsize <= size:
            return Place(start + offset * dtype.itemsize, count, dtype, shape, strides)
    raise Unreadable(f"tensor {name!r} does not fit its storage; the file is damaged, fetch it again")


def read(path: pathlib.Path, place: Place) -> np.ndarray:
    """Returns the tensor at a place, as a read-only view. Raises Unreadable if the file has become shorter."""
    with open(path, "rb") as file:
        numbers = np.frombuffer(_read_exactly(file, place.start, place.count * place.dtype.itemsize), place.dtype)
    strides = [stride * place.dtype.itemsize for stride in place.strides]
    return np.lib.stride_tricks.as_strided(numbers, place.shape, strides, writeable=False)


def is_zip(path: pathlib.Path) -> bool:
    """Returns whether a file has the zip layout, by its first bytes. Raises Unreadable if it has neither layout."""
    with open(path, "rb") as file:
        start = file.read(len(_ZIP_START))
    if not start:
        raise Unreadable("it is empty; fetch it again")
    if not start.startswith((_ZIP_START, _PICKLE_START)):
        raise Unreadable(NOT_TORCH)
    return start.startswith(_ZIP_START)


def zip_members(path: pathlib.Path) -> dict[str, tuple[int, int]]:
    """Returns first byte and size of each member of a zip, by name. Raises Unreadable for one not of torch.save."""
    with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
        infos = {info.filename.partition("/")[2]: info for info in archive.infolist()}
        if "data.pkl" not in infos:
            raise Unreadable("it is a zip that torch.save did not write; unpack it and give the weight file in it")
        for name, info in infos.items():
            if info.compress_type != zipfile.ZIP_STORED:
                raise Unreadable(f"its member {name!r} is compressed; save it again with torch.save")
        members = {name: (_first_byte(file, info), info.file_size) for name, info in infos.items()}
        if "byteorder" in members and _read_exactly(file, *members["byteorder"]) != b"little":
            raise Unreadable("its numbers are big-endian; save it again on a little-endian machine")
        return members


def refusal(name: str) -> str:
    """The message for a pickle that asks for the class or function `name`."""
    return (f"it asks for {repr(name)[1:-1]}, which could run code; "  # escaped, so that it stays on one line
            "give a file of tensors alone, as torch.save(model.state_dict(), ...) writes")


class _Ignored:
    """Stands for an argparse.Namespace: takes any state and keeps nothing."""

    def __setstate__(self, state: Any) -> None:
        pass


class _Unpickler(pickle.Unpickler):
    """Makes plain values, dictionaries and `StoredTensor`s. Nothing else is looked up, so nothing else can be called.

    A pickle can set attributes on what it holds. What `find_class` hands out lets none be set that matters: strings,
    bound methods, a type of C, and a class whose `__setstate__` fails on itself.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.storages: dict[str, Storage] = {}
        self._classes = {
            (collections.OrderedDict.__module__, "OrderedDict"): collections.OrderedDict,
            (argparse.Namespace.__module__, "Namespace"): _Ignored,
            ("torch._utils", "_rebuild_tensor_v2"): self._rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): self._rebuild_parameter,
            **{("torch", name): name for name in _DTYPES}}

    def find_class(self, module: str, name: str) -> Any:
        """What a pickle may ask for, by exact name."""
        if (module, name) not in self._classes:
            raise Unreadable(refusal(f"{module}.{name}"))
        return self._classes[module, name]

    def persistent_load(self, pid: Any) -> Storage:
        """The storage that a pickle names. Views of storages, which PyTorch has long stopped writing, are not read."""
        tag, kind, key, _, count, *view = pid
        if tag != "storage" or kind not in _DTYPES or view not in ([], [None]):
            raise Unreadable(NOT_TORCH)
        return self.storages.setdefault(key, Storage(kind, key, count))

    def _rebuild_tensor(self, storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...],
                        requires_grad: bool, hooks: Any) -> StoredTensor:
        return StoredTensor(storage, offset, shape, strides)

    def _rebuild_parameter(self, tensor: StoredTensor, requires_grad: bool, hooks: Any) -> StoredTensor:
        return tensor


def _unpickle(file: BinaryIO) -> tuple[Any, dict[str, Storage]]:
    """Returns the object and the storages of the pickle at the file's position.

    Its instructions are checked first: a damaged length or number in one would take all memory.
    """
    start = file.tell()
    numbers: list[Any] = [argument for opcode, argument, _ in pickletools.genops(file)
                          if opcode.name in ("PUT", "LONG_BINPUT")]
    size = file.tell() - start
    if any(number > size for number in numbers):
        raise Unreadable(NOT_TORCH)
    unpickler = _Unpickler(io.BytesIO(_read_exactly(file, start, size)))
    return unpickler.load(), unpickler.storages


def _load_zip(path: pathlib.Path) -> tuple[Any, dict[str, tuple[int, int]]]:
    members = zip_members(path)
    with open(path, "rb") as file:
        pickled = _read_exactly(file, *members["data.pkl"])
    storages = {name.removeprefix("data/"): place for name, place in members.items() if name.startswith("data/")}
    return _unpickle(io.BytesIO(pickled))[0], storages


def _load_legacy(path: pathlib.Path) -> tuple[Any, dict[str, tuple[int, int]]]:
    storages = {}
    with open(path, "rb") as file:
        if _unpickle(file)[0] != _MAGIC or _unpickle(file)[0] != _VERSION:
            raise Unreadable(NOT_TORCH)
        _unpickle(file)  # of the writer's system: the numbers are little-endian on every one
        tree, told = _unpickle(file)
        for key in _unpickle(file)[0]:
            (count,) = struct.unpack("<q", file.read(8))
            size = count * _DTYPES[told[key].kind].itemsize
            storages[key] = (file.tell(), size)
            if file.seek(size, os.SEEK_CUR) > os.fstat(file.fileno()).st_size:
                raise Unreadable(NOT_TORCH)
    return tree, storages


def _first_byte(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin: its own header is padded otherwise than the directory at the end says."""
    header = _read_exactly(file, info.header_offset, _LOCAL_HEADER.size)
    signature, name_size, extra_size = _LOCAL_HEADER.unpack(header)
    if signature != _ZIP_START:
        raise Unreadable(NOT_TORCH)
    return info.header_offset + _LOCAL_HEADER.size + name_size + extra_size


def _read_exactly(file: BinaryIO, start: int, size: int) -> bytes:
    file.seek(start)
    content = file.read(size)
    if len(content) != size:
        raise Unreadable(NOT_TORCH)
    return content
