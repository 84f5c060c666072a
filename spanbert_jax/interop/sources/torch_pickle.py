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

from spanbert_jax.interop.sources.tensors import MAX_AXES

NOT_TORCH = "it is damaged or not a PyTorch weight file; fetch it again, or give one that torch.save wrote"
_ZIP_START, _PICKLE_START = b"PK\x03\x04", b"\x80"
_LOCAL_HEADER = struct.Struct("<4s22xHH")
# Those of 10,000 tensors have about a megabyte. Each byte can make an object of 200 bytes.
_MAX_PICKLE, _MAX_INSTRUCTIONS, _MAX_DIRECTORY = 8 << 20, 1_000_000, 16 << 20  # bytes, number, bytes
_MAGIC, _VERSION = 0x1950a86a20f9469cfc6c, 1001
_DTYPES = {
    "FloatStorage": np.dtype(np.float32), "DoubleStorage": np.dtype(np.float64), "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16), "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32), "ShortStorage": np.dtype(np.int16), "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8), "BoolStorage": np.dtype(np.bool_)}
# What else PyTorch counts as plain values. They are no tensors, so that nothing is made of them.
_IGNORED = (("torch", "Size"), ("torch", "device"), ("_codecs", "encode"), ("collections", "Counter"),
            *((module, name) for module in ("__builtin__", "builtins") for name in ("set", "bytearray", "complex")),
            *(("torch", name) for name in ("float64", "float32", "float16", "bfloat16", "int64", "int32", "bool")))


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
    if len(shape) == len(strides) <= MAX_AXES and all(
            type(number) is int and 0 <= number < 1 << 63 for number in (storage.count, offset, *shape, *strides)):
        count = 0 if 0 in shape else 1 + sum((length - 1) * stride for length, stride in zip(shape, strides))
        if offset + count <= storage.count and storage.count * dtype.itemsize <= size:
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
    with open(path, "rb") as file:
        _check_directory(file)
        with zipfile.ZipFile(file) as archive:
            infos = {info.filename.partition("/")[2]: info for info in archive.infolist()}
        if "constants.pkl" in infos or any(name.startswith("code/") for name in infos):
            raise Unreadable("it is a TorchScript archive, which holds code; give a file of tensors alone, as "
                             "torch.save(model.state_dict(), ...) writes")
        if "data.pkl" not in infos:
            raise Unreadable("it is a zip that torch.save did not write; unpack it and give the weight file in it")
        for name, info in infos.items():
            if info.compress_type != zipfile.ZIP_STORED:
                raise Unreadable(f"its member {name!r} is compressed; save it again with torch.save")
        members = {name: (_first_byte(file, info), info.file_size) for name, info in infos.items()}
        if any(start + size > _size(file) for start, size in members.values()):
            raise Unreadable(NOT_TORCH)
        if "byteorder" in members and _read_exactly(file, members["byteorder"][0], len(b"little")) != b"little":
            raise Unreadable("its numbers are big-endian; save it again on a little-endian machine")
        return members


def _check_directory(file: BinaryIO) -> None:
    """Raises Unreadable if a zip's directory at its end is too large to read: each of its entries takes a kilobyte."""
    file.seek(max(0, _size(file) - 98))
    tail = file.read()
    end64, locator, end = tail[:-42], tail[-42:-22], tail[-22:]
    if not end.startswith(b"PK\x05\x06"):  # with a comment behind it, which torch.save does not write
        raise Unreadable(NOT_TORCH)
    large = locator.startswith(b"PK\x06\x07") and end64.startswith(b"PK\x06\x06")
    if int.from_bytes(end64[40:48] if large else end[12:16], "little") > _MAX_DIRECTORY:
        raise Unreadable(f"its directory has more than {_MAX_DIRECTORY >> 20} MiB; give a file that torch.save wrote")


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
            ("torch._utils", "_rebuild_parameter_with_state"): self._rebuild_parameter,
            **dict.fromkeys(_IGNORED, self._ignore),
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
                        *_: Any) -> StoredTensor:
        return StoredTensor(storage, offset, shape, strides)

    def _rebuild_parameter(self, tensor: StoredTensor, *_: Any) -> StoredTensor:
        return tensor

    def _ignore(self, *_: Any) -> None:
        pass


def _unpickle(file: io.BytesIO) -> tuple[Any, dict[str, Storage]]:
    """Returns the object and the storages of the pickle at the file's position.

    Its instructions are checked first: a damaged length or number in one would take all memory.
    """
    start, numbers = file.tell(), list[Any]()
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if opcode.name in ("PUT", "LONG_BINPUT"):
            numbers.append(argument)
        if count > _MAX_INSTRUCTIONS:
            raise Unreadable(f"a pickle in it has more than {_MAX_INSTRUCTIONS:,} instructions; give a file of tensors "
                             "alone")
    size = file.tell() - start
    if any(number > size for number in numbers):
        raise Unreadable(NOT_TORCH)
    unpickler = _Unpickler(io.BytesIO(_read_exactly(file, start, size)))
    return unpickler.load(), unpickler.storages


def _load_zip(path: pathlib.Path) -> tuple[Any, dict[str, tuple[int, int]]]:
    members = zip_members(path)
    if members["data.pkl"][1] > _MAX_PICKLE:
        raise Unreadable(f"its data.pkl has more than {_MAX_PICKLE >> 20} MiB; give a file of tensors alone")
    with open(path, "rb") as file:
        pickled = _read_exactly(file, *members["data.pkl"])
    storages = {name.removeprefix("data/"): place for name, place in members.items() if name.startswith("data/")}
    return _unpickle(io.BytesIO(pickled))[0], storages


def _load_legacy(path: pathlib.Path) -> tuple[Any, dict[str, tuple[int, int]]]:
    storages = {}
    with open(path, "rb") as file:
        pickles = io.BytesIO(file.read(_MAX_PICKLE))
        if _unpickle(pickles)[0] != _MAGIC or _unpickle(pickles)[0] != _VERSION:
            raise Unreadable(NOT_TORCH)
        _unpickle(pickles)  # of the writer's system: the numbers are little-endian on every one
        tree, told = _unpickle(pickles)
        keys, _ = _unpickle(pickles)
        file.seek(pickles.tell())
        for key in keys:
            (count,) = struct.unpack("<q", file.read(8))
            size = count * _DTYPES[told[key].kind].itemsize
            storages[key] = (file.tell(), size)
            if file.seek(size, os.SEEK_CUR) > _size(file):
                raise Unreadable(NOT_TORCH)
    return tree, storages


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


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
