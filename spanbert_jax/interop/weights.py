"""From named tensors to parameters."""
import logging
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from spanbert_jax.common.errors import UserError
from spanbert_jax.interop.architectures import conversion_of
from spanbert_jax.interop.layout import Leaf, build, leaves
from spanbert_jax.interop.sources.tensors import LocatedTensors
from spanbert_jax.model import Decoder, EncoderModel

logger = logging.getLogger("spanbert_jax")
_THREADS = min(8, os.cpu_count() or 1)
_BLOCK = 64  # rows of a kernel that are transposed at once
_ALIGNMENT = 64  # bytes
_BODY = ("encoder", "embeddings", "layers", "norm")  # the modules that are no heads


def load(model: EncoderModel | Decoder, tensors: LocatedTensors, seed: int = 0,
         finish: Callable[[np.ndarray], Any] = lambda array: array) -> dict[str, Any]:
    """Returns the parameters of a model from tensors; heads that are missing are initialized, with a warning.

    The `tensors` have the names of the model's architecture; `seed` is of new heads; `finish` is called with each
    complete float32 parameter, and the tree holds its results. Raises UserError if a tensor is missing, has another
    shape, or has numbers that are not finite.
    """
    optional = conversion_of(model.config).names.optional
    there = {leaf.module for leaf in leaves(model) if any(name in tensors.shapes for name in leaf.names)}
    new = {leaf.module for leaf in leaves(model)} - there
    for module in sorted(new):
        logger.warning("%s has no %s: it is initialized at random and has to be trained", tensors.path,
                       module.replace("_", " "))
    stored = [leaf for leaf in leaves(model) if leaf.module not in new]
    _check_biases(stored, tensors, optional)
    for leaf in stored:  # before any is read: together they give the memory that the others take
        for name in leaf.names:
            if name in tensors.shapes:
                _check_shape(tensors, name, leaf)
            elif name not in optional and leaf.kind != "bias":
                raise UserError(f"{tensors.path}: {name} is missing; the file is incomplete, or of another model")
    random, missing = np.random.default_rng(seed), list[str]()

    def make(leaf: Leaf) -> Any:
        if leaf.module in new:
            return finish(fresh(leaf, model.config.initializer_range, random))
        array = _aligned(leaf.shape)
        array[leaf.rows or len(array):] = 0
        missing.extend(filter(None, pool.map(lambda index: _fill(leaf, index, array, tensors, optional),
                                            range(len(leaf.names)))))
        return finish(array)

    with ThreadPoolExecutor(_THREADS) as pool:  # reading and copying release the interpreter lock
        params = build(model, make)
    if missing:
        logger.warning("%s has no biases %s%s: they are zero", tensors.path, ", ".join(missing[:3]),
                       f" and {len(missing) - 3} more" if len(missing) > 3 else "")
    return params


def _check_biases(parts: Sequence[Leaf], tensors: LocatedTensors, optional: Sequence[str]) -> None:
    """Raises UserError if only some biases of a projection's layers, or of all layer norms together, are missing."""
    biases = [leaf for leaf in parts if leaf.kind == "bias" and leaf.path[0] in _BODY]
    norms = [name for leaf in biases for name in leaf.names if leaf.path[-2].endswith("norm")]
    for group in (norms, *(leaf.names for leaf in biases)):
        group = [name for name in group if name not in optional]
        there = [name in tensors.shapes for name in group]
        if any(there) and not all(there):
            raise UserError(f"{tensors.path}: {group[there.index(False)]} is missing, and others like it are there; "
                            "the file is incomplete")


def fresh(leaf: Leaf, deviation: float, random: np.random.Generator) -> np.ndarray:
    """Returns a new parameter from the distribution that the model initializes it with."""
    if leaf.kind in ("kernel", "embedding"):
        return random.standard_normal(leaf.shape, np.float32) * np.float32(deviation)
    return np.full(leaf.shape, leaf.kind == "scale", np.float32)


def _fill(leaf: Leaf, index: int, array: np.ndarray, tensors: LocatedTensors, optional: Sequence[str]) -> str | None:
    """Copies a tensor into its parameter. Returns its name if it is a bias that is missing, and so zero."""
    name, slot = leaf.names[index], leaf.slot(index, array)
    if name not in tensors.shapes:
        if name in optional:
            slot[...] = leaf.kind == "scale"
            return None
        slot[...] = 0
        return name
    value = read_checked(tensors, name, leaf)
    if leaf.kind != "kernel":
        slot[...] = value[:leaf.rows]
        return None
    # A block of columns at a time is five times as fast as all at once, which misses the processor's cache each time.
    for first in range(0, len(value), _BLOCK):
        slot[first:first + _BLOCK] = value[first:first + _BLOCK]
    return None


def _aligned(shape: tuple[int, ...]) -> np.ndarray:
    """Returns an array that JAX on a CPU can use without a copy."""
    size = math.prod(shape) * 4
    buffer = np.empty(size + _ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % _ALIGNMENT
    return buffer[start:start + size].view(np.float32).reshape(shape)


def _check_shape(tensors: LocatedTensors, name: str, leaf: Leaf) -> None:
    wanted, found = leaf.tensor_shape, tensors.shapes[name]
    padded = leaf.rows is not None and found[:1] >= wanted[:1] and found[1:] == wanted[1:]
    if found != wanted and not padded:
        raise UserError(f"{tensors.where(name)} is {list(found)}; the model needs {list(wanted)}")


def read_checked(tensors: LocatedTensors, name: str, leaf: Leaf) -> np.ndarray:
    """Reads a tensor; a vocabulary may have more rows. Raises UserError for a wrong shape or dtype, infinity or NaN."""
    _check_shape(tensors, name, leaf)
    where, value = tensors.where(name), tensors.read(name)
    if not np.issubdtype(value.dtype, np.floating) and value.dtype.name != "bfloat16":
        raise UserError(f"{where} holds {value.dtype}; floating-point numbers are needed")
    # A sum is finite only if all its terms are, and takes one pass; it may overflow, so it is only a first test.
    with np.errstate(over="ignore", invalid="ignore"):
        suspicious = not np.isfinite(np.sum(value, dtype=np.float32))
    if suspicious and (count := int(np.sum(~np.isfinite(value.astype(np.float32))))):
        raise UserError(f"{where}: {count:,} of its numbers are not finite; the file is damaged or its training failed")
    return value
