"""Other names of the same tensors: prefixes, the old names of layer norm, fused projections, ties."""
from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

import numpy as np

from spanbert_jax.errors import UserError
from spanbert_jax.interop.layout import EMBEDDING
from spanbert_jax.interop.sources.tensors import Tensors

_TIES = ("cls.predictions.decoder.weight", "cls.pair_target_predictions.decoder.weight")
# Tensors that repeat another, which stands for them where it is missing.
_TWINS = {EMBEDDING: _TIES[:1], "cls.predictions.bias": ("cls.predictions.decoder.bias",),
          "cls.pair_target_predictions.bias": ("cls.pair_target_predictions.decoder.bias",)}
_ROOT = re.compile(r"(.*?)embeddings\.(?:word|position)_embeddings\.weight")
_OLD_LEAVES = {"gamma": "weight", "beta": "bias"}
_FUSED = re.compile(r"(.*\.attention\.self)\.(?:qkv|Wqkv|query_key_value|in_proj)[._](weight|bias)")
_PARTS = ("query", "key", "value")


@dataclasses.dataclass(frozen=True)
class _Stored:
    """A tensor as it is stored: its name, and which third of it is meant where three are fused."""
    name: str
    third: int | None = None


class NamedTensors:
    """Tensors under the names of `layout`, whatever the names in the file are."""

    def __init__(self, stored: Tensors):
        """Finds the names.

        Raises:
          UserError: when it is no BERT, or two tensors claim one name.
        """
        self.path, self._stored = stored.path, stored
        self._entries = _canonical(stored)
        self.shapes = {name: self._shape(entry) for name, entry in self._entries.items()}

    def read(self, name: str) -> np.ndarray:
        """One tensor, in the dtype that it is stored in."""
        entry = self._entries[name]
        value = self._stored.read(entry.name)
        return value if entry.third is None else np.split(value, 3)[entry.third]

    def stored_name(self, name: str) -> str:
        """The name in the file, for errors."""
        return self._entries[name].name

    def check_ties(self) -> None:
        """That output layers which should repeat the piece embeddings do.

        Raises:
          UserError: naming one that does not: the network here has one table for both.
        """
        for tie in _TIES:
            if self._entries.get(tie, self._entries[EMBEDDING]) == self._entries[EMBEDDING]:
                continue
            if not np.array_equal(self.read(tie), self.read(EMBEDDING)):
                raise UserError(f"{self.path}: {self.stored_name(tie)} differs from {self.stored_name(EMBEDDING)}; "
                                "only networks whose output layer repeats the piece embeddings can be read")

    def _shape(self, entry: _Stored) -> tuple[int, ...]:
        shape = self._stored.shapes[entry.name]
        if entry.third is None:
            return shape
        if not shape or shape[0] % 3:
            raise UserError(f"{self.path}: {entry.name} is {list(shape)}; three projections in one tensor need a "
                            "leading axis that divides by 3")
        return (shape[0] // 3, *shape[1:])


def _canonical(stored: Tensors) -> dict[str, _Stored]:
    """Names of `layout`, and the tensors that are stored for them."""
    root = _root(stored)
    outer = root.removesuffix("bert.")
    entries: dict[str, _Stored] = {}

    def add(name: str, entry: _Stored) -> None:
        if name in entries:
            raise UserError(f"{stored.path}: {entries[name].name} and {entry.name} are the same tensor of the network; "
                            "remove one of them")
        entries[name] = entry

    for name in stored.shapes:
        known = _rename(name, root, outer)
        fused = _FUSED.fullmatch(known)
        for third, part in enumerate(_PARTS if fused else ()):
            add(f"{fused[1]}.{part}.{fused[2]}", _Stored(name, third))
        if not fused:
            add(known, _Stored(name))
    for name, twins in _TWINS.items():
        for twin in twins:
            if twin in entries:
                entries.setdefault(name, entries[twin])
    if EMBEDDING not in entries:
        raise UserError(f"{stored.path}: {root}{EMBEDDING.removeprefix('bert.')} is missing; the file is not whole")
    return entries


def _root(stored: Tensors) -> str:
    """What stands before the names of the encoder, such as "bert.", "decoder.bert." or nothing."""
    roots = {match[1] for name in stored.shapes if (match := _ROOT.fullmatch(name))}
    if len(roots) != 1:
        found = f"several encoders ({', '.join(sorted(roots))})" if roots else "no embeddings.word_embeddings.weight"
        raise UserError(f"{stored.path}: not the weights of one BERT encoder: {found} among its "
                        f"{len(stored.shapes)} tensors, such as {_some(stored.shapes)}")
    return roots.pop()


def _rename(name: str, root: str, outer: str) -> str:
    """A name of `layout`, or something else for a tensor that the network has no place for."""
    head, _, leaf = name.rpartition(".")
    name = f"{head}.{_OLD_LEAVES.get(leaf, leaf)}"
    if name.startswith((f"{root}embeddings.", f"{root}encoder.", f"{root}pooler.")):
        return f"bert.{name.removeprefix(root)}"
    return name.removeprefix(outer)


def _some(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)[:3]) or "none"
