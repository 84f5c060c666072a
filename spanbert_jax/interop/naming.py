"""Other names of the same tensors: prefixes, the old names of layer norm, fused projections, ties."""
from __future__ import annotations

import copy
import dataclasses
import functools
import pathlib
import re
from collections.abc import Callable, Sequence

import numpy as np

from spanbert_jax.common.errors import UserError
from spanbert_jax.interop.layout import EMBEDDING, is_known
from spanbert_jax.interop.sources.tensors import Tensors

_TIES = ("cls.predictions.decoder.weight", "cls.pair_target_predictions.decoder.weight")
# Tensors that repeat another, which stands for them where it is missing.
_TWINS = {EMBEDDING: _TIES[0], "cls.predictions.bias": "cls.predictions.decoder.bias",
          "cls.pair_target_predictions.bias": "cls.pair_target_predictions.decoder.bias"}
# What older versions of transformers store besides.
_BUFFERS = ("bert.embeddings.position_ids", "bert.embeddings.token_type_ids")
# Networks with tensors of the same names that compute something else.
_RELATIVES = ("roberta", "electra", "deberta", "mpnet", "longformer", "ernie", "layoutlm")
_ROOT = re.compile(r"(.*?)embeddings\.(?:word|position)_embeddings\.weight")
_OLD_LEAVES = {"gamma": "weight", "beta": "bias"}
_FUSED = re.compile(r"(.*\.attention\.self)\.(?:qkv|Wqkv|query_key_value|in_proj)[._](weight|bias)")
_PARTS = ("query", "key", "value")


@dataclasses.dataclass(frozen=True)
class Stored:
    """A tensor as it is stored.

    Attributes:
      file, name: in which file, under which name.
      part: which of how many parts of its leading axis, where several tensors are fused; None for all of it.
      turned: whether it is stored the other way round, [in, out], so that its axes have to be exchanged first.
    """
    file: Tensors
    name: str
    part: tuple[int, int] | None = None
    turned: bool = False

    def __str__(self) -> str:
        return f"{self.file.path}: {self.name}"

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape, or that of its part.

        Raises:
          UserError: when it has no such parts.
        """
        shape = tuple(self.file.shapes[self.name])
        shape = shape[::-1] if self.turned else shape
        if self.part is None:
            return shape
        count = self.part[1]
        if not shape or shape[0] % count:
            raise UserError(f"{self} is {list(self.file.shapes[self.name])}; {count} projections in one tensor need an "
                            f"axis of outputs that divides by {count}")
        return (shape[0] // count, *shape[1:])

    def read(self) -> np.ndarray:
        """The tensor, or its part, in the dtype that it is stored in."""
        value = self.file.read(self.name)
        value = value.T if self.turned else value
        return value if self.part is None else np.split(value, self.part[1])[self.part[0]]


class NamedTensors:
    """Tensors of one or more files under the names of `layout`, whatever the names in the files are.

    Attributes:
      path: of the files, or of their directory.
    """

    def __init__(self, path: pathlib.Path, files: Sequence[Tensors], prefix: str = "",
                 rename: Callable[[pathlib.Path, Sequence[Stored]], dict[str, Stored]] | None = None):
        """Finds the names.

        Args:
          prefix: of the names of those that are meant.
          rename: gives the tensors by name of `layout`; as BERT has them, if not given.

        Raises:
          UserError: when it is another network, or two tensors claim one name.
        """
        self.path = path
        stored = [Stored(file, name) for file in files for name in file.shapes if name.startswith(prefix)]
        self._entries = (rename or _canonical)(path, stored)

    @functools.cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the tensors, by name."""
        return {name: entry.shape for name, entry in self._entries.items()}

    def without(self, module: str) -> NamedTensors:
        """The same but for the tensors of a module."""
        others = copy.copy(self)
        others._entries = {name: entry for name, entry in self._entries.items() if not name.startswith(f"{module}.")}
        others.__dict__.pop("shapes", None)
        return others

    def read(self, name: str) -> np.ndarray:
        """One tensor, in the dtype that it is stored in."""
        return self._entries[name].read()

    def where(self, name: str) -> str:
        """The file of a tensor and its name there, for errors."""
        return str(self._entries[name])

    def foreign(self) -> list[str]:
        """The names in the files of tensors that no network here has a place for, such as another head's."""
        passed_over = (*_TIES, *_TWINS.values(), *_BUFFERS)
        return [entry.name for name, entry in self._entries.items() if not (is_known(name) or name in passed_over)]

    def check_ties(self) -> None:
        """That output layers which should repeat the piece embeddings do, but for rows that pad one of them.

        Raises:
          UserError: naming one that does not: the network here has one table for both.
        """
        for tie in _TIES:
            if self._entries.get(tie, self._entries[EMBEDDING]) == self._entries[EMBEDDING]:
                continue
            rows = min(self.shapes[tie][0], self.shapes[EMBEDDING][0])
            if not np.array_equal(self.read(tie)[:rows], self.read(EMBEDDING)[:rows], equal_nan=True):
                raise UserError(f"{self.where(tie)} differs from {self._entries[EMBEDDING].name}; only networks whose "
                                "output layer repeats the piece embeddings can be read")


def _canonical(path: pathlib.Path, stored: Sequence[Stored]) -> dict[str, Stored]:
    """Names of `layout`, and the tensors that are stored for them."""
    root = _root(path, [tensor.name for tensor in stored])
    outer = root.removesuffix("bert.")
    entries: dict[str, Stored] = {}

    def add(name: str, tensor: Stored) -> None:
        if name in entries:
            raise UserError(f"{entries[name]} and {tensor} are the same tensor of the network; remove one of them")
        entries[name] = tensor

    for tensor in stored:
        name = _rename(tensor.name, root, outer)
        if fused := _FUSED.fullmatch(name):
            for third, part in enumerate(_PARTS):
                add(f"{fused[1]}.{part}.{fused[2]}", dataclasses.replace(tensor, part=(third, len(_PARTS))))
        else:
            add(name, tensor)
    for name, twin in _TWINS.items():
        if twin in entries:
            entries.setdefault(name, entries[twin])
    if EMBEDDING not in entries:
        raise UserError(f"{path}: {root}{EMBEDDING.removeprefix('bert.')} is missing; the file is not whole")
    return entries


def _root(path: pathlib.Path, names: Sequence[str]) -> str:
    """What stands before the names of the encoder, such as "bert.", "decoder.bert." or nothing."""
    roots = {match[1] for name in names if (match := _ROOT.fullmatch(name))}
    if len(roots) != 1:
        found = f"several encoders ({', '.join(sorted(roots))})" if roots else "no embeddings.word_embeddings.weight"
        raise UserError(f"{path}: not the weights of one BERT encoder: {found} among its {len(names)} tensors, such as "
                        f"{', '.join(sorted(names)[:3]) or 'none'}")
    root = roots.pop()
    relative = next((name for name in _RELATIVES if root.removesuffix(".").endswith(name)), "")
    if relative or any(name.startswith("lm_head.") for name in names):
        raise UserError(f"{path}: the weights of {relative or 'a relative of BERT, with an lm_head'}; only BERT, such "
                        "as SpanBERT, can be read")
    return root


def _rename(name: str, root: str, outer: str) -> str:
    """A name of `layout`, or something else for a tensor that the network has no place for."""
    head, _, leaf = name.rpartition(".")
    name = f"{head}.{_OLD_LEAVES.get(leaf, leaf)}"
    if name.startswith((f"{root}embeddings.", f"{root}encoder.", f"{root}pooler.")):
        return f"bert.{name.removeprefix(root)}"
    return name.removeprefix(outer)

