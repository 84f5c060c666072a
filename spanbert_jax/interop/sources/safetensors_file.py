"""Safetensors files, also of parameters in our own layout."""
import functools
import pathlib
from typing import Any, TypedDict

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.files import open_regular
from spanbert_jax.common.json_files import MAX_BYTES, JsonError, check_type, parse_json
from spanbert_jax.interop.layout import leaf_of
from spanbert_jax.interop.naming import TensorNames
from spanbert_jax.interop.sources.tensors import MAX_LAYERS, check_count, check_shapes

_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "I64": np.int64,
           "I32": np.int32, "I16": np.int16, "I8": np.int8, "U8": np.uint8, "BOOL": np.bool_}


class _Entry(TypedDict):
    """What the header says of a tensor."""
    dtype: str
    shape: list[int]
    data_offsets: list[int]


class SafetensorsFile:
    """The tensors of one file.

    The safetensors library checks the file. Numbers are read without it, since it maps files into memory, where pages
    that were read stay, and makes another copy.
    """

    def __init__(self, path: pathlib.Path):
        """Reads names and shapes. Raises UserError if it is not a complete safetensors file."""
        self.path = path
        try:
            with open_regular(path) as file:
                size = int.from_bytes(file.read(8), "little")
                header = parse_json(file.read(min(size, MAX_BYTES + 1)), dict[str, Any])
            header.pop("__metadata__", None)
            check_count(path, len(header))
            check_type(header, dict[str, _Entry])
            with safe_open(path, "np"):
                self._start = 8 + size
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None
        except (SafetensorError, JsonError) as error:
            raise UserError(f"{path}: not a whole safetensors file ({error}); fetch it again") from None
        self._header: dict[str, _Entry] = header
        self.shapes = {name: tuple(entry["shape"]) for name, entry in self._header.items()}
        check_shapes(path, self.shapes, path.stat().st_size)

    def read(self, name: str) -> np.ndarray:
        """Returns a tensor, in the dtype that it is stored in."""
        entry = self._header[name]
        if entry["dtype"] not in _DTYPES:
            raise UserError(f"{self.path}: {name} holds {entry['dtype']}; allowed are {', '.join(_DTYPES)}")
        dtype, (begin, end) = np.dtype(_DTYPES[entry["dtype"]]), entry["data_offsets"]
        try:
            flat = np.fromfile(self.path, dtype, (end - begin) // dtype.itemsize, offset=self._start + begin)
            return flat.reshape(entry["shape"])
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path}: {name}: cannot be read ({error}); fetch the file again") from None


class OwnFile:
    """The tensors of a file whose names are paths of parameters, such as encoder/layers/attention/query/kernel."""

    def __init__(self, file: SafetensorsFile, names: TensorNames):
        """Finds the tensors under an architecture's names. Raises UserError for a name that is no parameter."""
        self.path, self._file = file.path, file
        self._where, self.shapes = {}, {}
        for name, shape in file.shapes.items():
            if "layers" in name.split("/")[:2] and shape and shape[0] > MAX_LAYERS:
                raise UserError(f"{file.path}: {name} has {shape[0]:,} layers; {MAX_LAYERS:,} are the most")
            try:
                leaf = leaf_of(tuple(name.split("/")), shape, shape[0], names)  # the vocabulary with its padding
            except (KeyError, IndexError):
                raise UserError(f"{file.path}: {name} is not a parameter of the model; export it again") from None
            for index, tensor in enumerate(leaf.names):
                self._where[tensor] = leaf, index
                self.shapes[tensor] = leaf.tensor_shape
        self._read = functools.lru_cache(1)(file.read)  # layers of a parameter are read one after the other

    def read(self, name: str) -> np.ndarray:
        """Returns a tensor."""
        leaf, index = self._where[name]
        return leaf.slot(index, self._read("/".join(leaf.path)))
