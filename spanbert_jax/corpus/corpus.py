"""A prepared corpus on disk: opening it, and verifying its files."""
import dataclasses
import hashlib
import io
import json
import pathlib
from typing import Any, TypedDict

import numpy as np

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.json_files import MAX_BYTES, JsonError, check_type, parse_json, shown
from spanbert_jax.common.paths import utf8_path
from spanbert_jax.corpus.settings import MAX_LENGTH
from spanbert_jax.text import SpecialIds

FORMAT_VERSION = 2
REPORT, TOKENIZER, UNIGRAM, DATASET_INFO = "report.json", "tokenizer.json", "unigram.npy", "dataset_info.json"
DATASET, SHARD = "spanbert_rows", ".array_record-"  # in the names of shards: DATASET-SPLIT.array_record-NUMBER
_SHARD_HEAD = 65_536  # hashed bytes of a shard; ArrayRecord verifies the others when they are read
# Settings that determine the rows. The others act only through the content fingerprint and the tokenizer's hash.
_IDENTITY_SETTINGS = ("content", "blocks", "pack", "validation_fraction", "short_sequence_probability", "seed")


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A directory of rows."""
    path: pathlib.Path  # the directory; it is also a TFDS dataset directory
    length: int  # S, positions per row
    vocab_size: int  # V
    special: SpecialIds
    max_blocks: int  # largest number of mask blocks, the positions of one (segment, token type), in a row
    blocks: str  # how documents were cut: "sentences", "contiguous" or "pairs"
    unigram: np.ndarray  # [V] int64, occurrences of each token in training rows; 0 for [PAD], [CLS], [SEP], [MASK]
    num_rows: dict[str, int]  # number of rows of each split
    tokenizer_path: pathlib.Path  # the tokenizer.json that the rows were made with
    report: dict[str, Any]  # the content of report.json

    @property
    def identity(self) -> dict[str, Any]:
        """Fingerprint of the training rows, as JSON values: equal for equal rows, wherever the corpus is stored."""
        return {**{name: self.report["settings"][name] for name in _IDENTITY_SETTINGS}, "length": self.length,
                "vocab_size": self.vocab_size, "training_rows": self.num_rows["train"],
                "tokenizer": self.report["contents"][TOKENIZER][1]}

    def shards(self, split: str) -> list[pathlib.Path]:
        """Returns the ArrayRecord files of a split, in order."""
        return sorted(self.path / name for name in self.report["contents"] if f"-{split}{SHARD}" in name)


class _Report(TypedDict):
    """Entries of report.json that are needed to read the rows."""
    format_version: int
    contents: dict[str, list[int | str]]  # size and digest of each file
    settings: dict[str, Any]
    special_ids: dict[str, int]
    num_rows: dict[str, int]
    length: int
    vocab_size: int
    max_blocks: int


def open_corpus(path: str | pathlib.Path) -> Corpus:
    """Opens and verifies a corpus. Reads its small files completely and the first 64 KiB of each shard.

    Raises UserError if the directory does not exist, holds no finished corpus or one of another format version, or a
    file in it is missing or differs from the one that `prepare` wrote.
    """
    path = utf8_path(path)
    if not path.is_dir():
        raise UserError(f"corpus {path}: {'a file, not a directory' if path.exists() else 'no such directory'}; make "
                        "one with `spanbert-jax prepare --out DIR`")
    report = _read_report(path)
    try:
        for name, (size, digest) in report["contents"].items():
            found, found_digest = _measure(path, name)
            if found != size:
                raise corrupt_corpus(path, name, f"{found:,} bytes long, not {size:,} as when the corpus was prepared")
            if found_digest != digest:
                raise corrupt_corpus(path, name, "not the file that was written when the corpus was prepared")
        return Corpus(
            path=path, length=report["length"], vocab_size=report["vocab_size"],
            special=SpecialIds(**report["special_ids"]), max_blocks=report["max_blocks"],
            blocks=report["settings"]["blocks"], unigram=_read_unigram(path, report["vocab_size"]),
            num_rows=dict(report["num_rows"]), tokenizer_path=path / TOKENIZER, report=report)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise corrupt_corpus(path, REPORT, "lacks entries that prepare writes") from None


def corrupt_corpus(path: pathlib.Path, name: str, reason: str) -> UserError:
    """Returns the error for a file of a corpus that is missing or damaged."""
    return UserError(f"corpus {path}: {name}: {reason}; restore a valid copy of it, or prepare the corpus again "
                     "(prepare --overwrite, or remove the directory)")


def file_digests(directory: pathlib.Path) -> dict[str, tuple[int, str]]:
    """Returns (size, hash) of each file except the report, by name. Only the first 64 KiB of a shard are hashed."""
    return {path.name: _measure(directory, path.name)
            for path in sorted(directory.iterdir()) if path.is_file() and not path.name.startswith(REPORT)}


def finish_report(report: dict[str, Any]) -> dict[str, Any]:
    """Returns a report with the format's version and its own hash, which reveals later changes."""
    report = {"format_version": FORMAT_VERSION, **report}
    return {**report, "seal": _report_checksum(report)}


def _read_report(path: pathlib.Path) -> dict[str, Any]:
    if not (path / REPORT).exists():
        raise UserError(f"corpus {path}: no {REPORT} in it, so it is no finished corpus; run prepare to make one")
    try:
        report = parse_json(_read(path, REPORT, MAX_BYTES + 1), dict[str, Any])
        if (version := report.get("format_version", FORMAT_VERSION)) == FORMAT_VERSION:
            check_type(report, _Report)
    except JsonError as error:
        raise corrupt_corpus(path, REPORT, f"not one that prepare wrote ({error})") from None
    if version != FORMAT_VERSION:
        raise UserError(f"corpus {path}: format version {shown(version)}, but this program reads {FORMAT_VERSION}; "
                        "prepare it again (prepare --overwrite, or remove the directory)")
    if report.pop("seal", None) != _report_checksum(report):
        raise corrupt_corpus(path, REPORT, "changed since prepare wrote it")
    if not 0 <= report["max_blocks"] <= report["length"] <= MAX_LENGTH:
        raise corrupt_corpus(path, REPORT, f"max_blocks={report['max_blocks']} in rows of length={report['length']}: "
                             f"must be from 0 to the length, and that at most {MAX_LENGTH}")
    if strange := [name for name in report["contents"] if "/" in name]:
        raise corrupt_corpus(path, REPORT, f"it has {strange[0]!r}, which is not in the directory")
    return report


def _read_unigram(path: pathlib.Path, vocab_size: int) -> np.ndarray:
    try:
        unigram = np.lib.format.read_array(io.BytesIO(_read(path, UNIGRAM)), allow_pickle=False)
    except Exception as error:  # NumPy raises many kinds
        raise corrupt_corpus(path, UNIGRAM, f"not an array of numbers ({type(error).__name__})") from None
    if unigram.shape != (vocab_size,) or unigram.dtype != np.int64:
        raise corrupt_corpus(path, UNIGRAM, f"holds {unigram.dtype} {list(unigram.shape)}, not int64 [{vocab_size}]")
    return unigram


def _measure(path: pathlib.Path, name: str) -> tuple[int, str]:
    data = _read(path, name, _SHARD_HEAD if SHARD in name else -1)
    return (path / name).stat().st_size, _digest(data)


def _read(path: pathlib.Path, name: str, limit: int = -1) -> bytes:
    """Returns the bytes of a file of a corpus, or its first `limit` bytes."""
    file = path / name
    if not file.is_file():
        raise corrupt_corpus(path, name, "not a file" if file.exists() else "missing")
    try:
        with open(file, "rb") as stream:
            return stream.read(limit)
    except OSError as error:
        raise corrupt_corpus(path, name, f"cannot be read ({error.strerror})") from None


def _report_checksum(report: dict[str, Any]) -> str:
    return _digest(json.dumps(report, sort_keys=True).encode())


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
