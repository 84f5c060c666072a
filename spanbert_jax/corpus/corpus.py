"""A prepared corpus on disk and what is known of it."""
import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from spanbert_jax.errors import UserError
from spanbert_jax.text import SpecialIds

FORMAT_VERSION = 1
REPORT, TOKENIZER, UNIGRAM, DATASET_INFO = "report.json", "tokenizer.json", "unigram.npy", "dataset_info.json"


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A directory of rows.

    Attributes:
      path: the directory, which is a TFDS dataset directory too.
      length: S, positions in a row.
      vocab_size: V.
      special: ids of the special pieces.
      max_blocks: most mask blocks, positions of one (segment, token type), in any row.
      blocks: how documents were cut: "sentences", "contiguous" or "pairs".
      unigram: [V] int64, how often each piece occurs in the training rows; 0 for [PAD], [CLS], [SEP] and [MASK].
      num_rows: rows of each split.
      tokenizer_path: the tokenizer.json the rows were made with.
      report: everything `prepare` reported, as in report.json.
    """
    path: pathlib.Path
    length: int
    vocab_size: int
    special: SpecialIds
    max_blocks: int
    blocks: str
    unigram: np.ndarray
    num_rows: dict[str, int]
    tokenizer_path: pathlib.Path
    report: dict[str, Any]


def open_corpus(path: str | pathlib.Path) -> Corpus:
    """Opens what `prepare` wrote.

    Raises:
      UserError: no such directory, no prepared corpus, one not finished, or one of another format version.
    """
    path = pathlib.Path(path)
    if not path.is_dir():
        raise UserError(f"corpus {path}: no such directory; make one with `spanbert-jax prepare --out {path}`")
    if not (path / REPORT).is_file():
        raise UserError(f"corpus {path}: no {REPORT} in it, so it is no finished corpus; run prepare to make one")
    try:
        report = json.loads((path / REPORT).read_text(encoding="utf-8"))
        version = report["format_version"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"corpus {path}: {REPORT} is not one that prepare wrote; run it with --overwrite") from None
    if version != FORMAT_VERSION:
        raise UserError(f"corpus {path}: format version {version}, but this program reads {FORMAT_VERSION}; "
                        "prepare anew")
    missing = [name for name in (TOKENIZER, UNIGRAM, DATASET_INFO) if not (path / name).is_file()]
    missing += [f"rows of {split}" for split, count in report["num_rows"].items()
                if count and not shards(path, split)]
    if missing:
        raise UserError(f"corpus {path}: {', '.join(missing)} missing; run prepare with --overwrite")
    return Corpus(
        path=path, length=report["length"], vocab_size=report["vocab_size"],
        special=SpecialIds(**report["special_ids"]), max_blocks=report["max_blocks"],
        blocks=report["settings"]["blocks"], unigram=np.load(path / UNIGRAM), num_rows=report["num_rows"],
        tokenizer_path=path / TOKENIZER, report=report)


def shards(path: pathlib.Path, split: str) -> list[pathlib.Path]:
    """The ArrayRecord files of a split, in order."""
    return sorted(path.glob(f"*-{split}.array_record-*"))
