"""`prepare`: sources in, a finished corpus directory out, or nothing."""
import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import shutil
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from tokenizers import Tokenizer

from spanbert_jax.common.console import make_console
from spanbert_jax.common.directories import replace_directory
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.files import write_text
from spanbert_jax.corpus.chunks import chunked, worker_count
from spanbert_jax.corpus.corpus import FORMAT_VERSION, REPORT, TOKENIZER, UNIGRAM, Corpus, contents, open_corpus, sealed
from spanbert_jax.corpus.processes import map_in_order, map_in_processes
from spanbert_jax.corpus.progress import ProgressBar
from spanbert_jax.corpus.report import make_report, print_report
from spanbert_jax.corpus.rows import BLOCK_MODES, RowBuilder, Rows, RowSettings
from spanbert_jax.corpus.scan import SPLITS, TRAIN, VALIDATION, SourceScan, scan_sources
from spanbert_jax.corpus.sources import FieldNames, SourceFile, resolve_sources
from spanbert_jax.corpus.sources.python_prose import PYTHON, SNAPSHOT_FILE, write_python_prose
from spanbert_jax.corpus.tokenization import CorpusStats
from spanbert_jax.corpus.workspace import GENERATED, workspace
from spanbert_jax.text import MIN_VOCAB_SIZE, load_tokenizer, special_ids, train_tokenizer, word_start_table

_MIN_LENGTH, _MAX_LENGTH = 8, 65_536
_POLL_SECONDS = 0.5


def prepare(sources: str | Sequence[str], out: str | pathlib.Path, *, tokenizer: str | pathlib.Path | None = None,
            vocab_size: int | None = None, lowercase: bool | None = None, format: str = "auto",
            text_field: str = "text", annotation_field: str | None = None, length: int = 512,
            blocks: str = "sentences", pack: bool = False, validation_fraction: float = 0.01,
            short_sequence_probability: float = 0.0, seed: int = 0, workers: int | None = None,
            overwrite: bool = False, progress: bool = True) -> Corpus:
    """Turns documents into rows of piece ids, once.

    Everything is written to a directory beside `out` that takes its name when complete. Called again with nothing
    changed it returns at once; with anything changed it refuses, naming what differs.

    Args:
      sources: files, directories, globs, "python" (the prose in this Python installation) or "tfds:NAME[:split]".
      out: directory of the corpus.
      tokenizer: vocab.txt, tokenizer.json or a directory with one; or
      vocab_size: train a WordPiece vocabulary of so many pieces on the training documents.
      lowercase: lower-case the text; None decides by the vocabulary, and leaves case when training one.
      format: auto, documents, blank-lines, sentences or jsonl; gzip of each is seen by its content.
      text_field: JSON field or TFDS feature that holds the text.
      annotation_field: JSON field with [[start, end], ...] character offsets of entities or phrases.
      length: S, positions in a row.
      blocks: sentences, contiguous or pairs.
      pack: put several blocks in a row.
      validation_fraction: share of the characters held out, by document.
      short_sequence_probability: for pairs, chance of a shorter target length for a document.
      seed: of the random choices in pairs.
      workers: processes; None for one each core. Rows do not depend on it.
      overwrite: replace a corpus made from something else.
      progress: show progress and the report.

    Raises:
      UserError: a setting or source is wrong, or `out` holds something else.
    """
    sources = [sources] if isinstance(sources, str) else list(sources)
    out = pathlib.Path(out)
    pieces = _tokenizer(tokenizer, vocab_size, lowercase)
    settings = {
        "format": format, "text_field": text_field, "annotation_field": annotation_field,
        "tokenizer": f"trained, {vocab_size} pieces" if pieces is None else _hash(pieces.to_str()),
        "lowercase": bool(lowercase) if pieces is None else None, "length": length, "blocks": blocks, "pack": pack,
        "validation_fraction": validation_fraction, "short_sequence_probability": short_sequence_probability,
        "seed": seed}
    _check(settings, workers)
    console = make_console(stderr=True, quiet=not progress)

    previous = None if overwrite else _previous(out)
    if previous:
        _refuse_difference(out, previous["settings"], {**previous["settings"], **settings})
        if previous["stamp"] == _stamp(resolve_sources(sources, format, out / GENERATED)):
            console.print(f"Corpus {out} is up to date: nothing to do.")
            return open_corpus(out)
    with workspace(out) as work:
        if PYTHON in sources:
            _take_snapshot(out, work, console)
        files = resolve_sources(sources, format, work / GENERATED)
        with ProgressBar("reading", None, "characters", progress) as bar:
            found = scan_sources(files, FieldNames(text_field, annotation_field), validation_fraction,
                                 lambda document: bar.advance(len(document.text)))
        settings["content"] = found.fingerprint
        if previous:
            _refuse_difference(out, previous["settings"], settings)
            _write_report(out, {**previous, "stamp": _stamp(files)})
            console.print(f"Corpus {out} is up to date: its sources have moved but hold the same.")
            return open_corpus(out)
        if pieces is None:
            console.print(f"Training a vocabulary of {vocab_size:,} pieces ...")
            pieces = _train_tokenizer(found, vocab_size, bool(lowercase))
        report = _build(work, found, pieces, settings, workers, progress)
        _write_report(work, {**report, "stamp": _stamp(files)})
        replace_directory(work, out)
    print_report(report, str(out), console)
    return open_corpus(out)


def wait_for_corpus(path: str | pathlib.Path) -> Corpus:
    """Opens the corpus that another process prepares at `path`, once it is finished.

    Waits without limit, until a signal raises: who starts a run's processes ends them all when one fails.

    Raises:
      UserError: as `open_corpus`.
    """
    while not (pathlib.Path(path) / REPORT).exists():
        time.sleep(_POLL_SECONDS)
    return open_corpus(path)


def _train_tokenizer(found: SourceScan, vocab_size: int, lowercase: bool) -> Tokenizer:
    """Trains in a process of its own: the library looks at no signal, and that process can be ended."""
    train = functools.partial(_TokenizerTrainer, vocab_size, lowercase)
    with contextlib.closing(map_in_processes(train, [found], workers=1)) as results:
        (_, trained), = results
    return Tokenizer.from_str(trained)


@dataclasses.dataclass(frozen=True)
class _TokenizerTrainer:
    vocab_size: int
    lowercase: bool

    def __call__(self, found: SourceScan) -> str:
        os.environ["TOKENIZERS_PARALLELISM"] = "true"
        return train_tokenizer(_TrainingTexts(found), self.vocab_size, self.lowercase).to_str()


class _TrainingTexts:
    """The texts of the training documents, as often as asked."""

    def __init__(self, found: SourceScan):
        self._found = found

    def __iter__(self) -> Iterator[str]:
        return (document.text for document in self._found.documents(TRAIN))


def _build(work: pathlib.Path, found: SourceScan, pieces: Tokenizer, settings: dict[str, Any], workers: int | None,
           progress: bool) -> dict[str, Any]:
    """Tokenises and writes all rows into `work`; returns the report."""
    length, special = settings["length"], special_ids(pieces)
    row_settings = RowSettings(pieces.to_str(), length, settings["blocks"], settings["pack"],
                               settings["short_sequence_probability"], settings["seed"])
    splits = [split for split in (TRAIN, VALIDATION) if found.split_characters(split)]
    characters = sum(map(found.split_characters, splits))
    workers = worker_count(workers, characters)
    stats = {SPLITS[split]: CorpusStats() for split in splits}
    unigram = np.zeros(len(word_start_table(pieces)), np.int64)
    most_segments = 1

    def rows_of(split: int) -> Iterator[Rows]:
        nonlocal most_segments
        chunks = chunked(found.documents(split), split, settings["blocks"])
        for chunk, (rows, chunk_stats) in map_in_order(functools.partial(RowBuilder, row_settings), chunks, workers):
            stats[SPLITS[split]].add(chunk_stats)
            if split == TRAIN:
                unigram[:] += np.bincount(rows["tokens"].ravel(), minlength=len(unigram))
            most_segments = max(most_segments, int(rows["segments"].max(initial=1)))
            bar.advance(sum(len(document.text) for document in chunk.documents))
            yield rows

    from spanbert_jax.corpus.builder import write_rows

    start = time.monotonic()
    with ProgressBar("preparing", characters, "characters", progress) as bar, contextlib.ExitStack() as workers_end:
        rows = {SPLITS[split]: workers_end.enter_context(contextlib.closing(rows_of(split))) for split in splits}
        write_rows(work, rows, length, len(unigram))
    seconds = time.monotonic() - start
    if not stats[SPLITS[TRAIN]].counts["rows"]:
        raise UserError("the documents to train on hold only characters that the tokenizer drops; give other sources")
    unigram[[special.pad, special.cls, special.sep, special.mask]] = 0
    np.save(work / UNIGRAM, unigram)
    (work / TOKENIZER).write_text(pieces.to_str(pretty=True), encoding="utf-8")
    return {"format_version": FORMAT_VERSION, "settings": settings, "length": length, "vocab_size": len(unigram),
            "special_ids": dataclasses.asdict(special),
            "max_blocks": 2 if settings["blocks"] == "pairs" else most_segments, "contents": contents(work),
            **make_report(found, stats, length, seconds, workers)}


def _tokenizer(path: str | pathlib.Path | None, vocab_size: int | None, lowercase: bool | None) -> Tokenizer | None:
    """The tokenizer given, or None if one is to be trained."""
    if (path is None) == (vocab_size is None):
        raise UserError("give either a tokenizer (vocab.txt or tokenizer.json) or a vocab_size to train one"
                        + ("" if path is None else ", not both"))
    if vocab_size is not None and vocab_size < MIN_VOCAB_SIZE:
        raise UserError(f"vocab_size is {vocab_size}: it must be at least {MIN_VOCAB_SIZE}")
    return None if path is None else load_tokenizer(path, lowercase)


def _check(settings: dict[str, Any], workers: int | None) -> None:
    """Refuses settings outside their range."""
    length, blocks = settings["length"], settings["blocks"]
    if not _MIN_LENGTH <= length <= _MAX_LENGTH:
        raise UserError(f"length is {length}: it must lie in {_MIN_LENGTH}..{_MAX_LENGTH}")
    if blocks not in BLOCK_MODES:
        raise UserError(f"blocks is {blocks!r}: it must be one of {', '.join(BLOCK_MODES)}")
    if settings["pack"] and blocks == "pairs":
        raise UserError("pack cannot be used with blocks 'pairs': a pair fills its row; leave out one of them")
    for name, most in (("validation_fraction", 0.9), ("short_sequence_probability", 1.0)):
        if not 0 <= settings[name] <= most:
            raise UserError(f"{name} is {settings[name]}: it must lie in 0..{most}")
    if settings["seed"] < 0:
        raise UserError(f"seed is {settings['seed']}: it must be 0 or more")
    if workers is not None and workers < 1:
        raise UserError(f"workers is {workers}: it must be 1 or more")


def _previous(out: pathlib.Path) -> dict[str, Any] | None:
    """The report of the corpus at `out`; None if there is none or a half-written one."""
    return open_corpus(out).report if (out / REPORT).exists() else None


def _refuse_difference(out: pathlib.Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    different = [f"{name}: {before.get(name)} -> {value}" for name, value in now.items() if before.get(name) != value]
    if different:
        raise UserError(f"corpus {out} was made from something else ({'; '.join(different)}): give another --out (in "
                        "training another --workdir), or prepare it with --overwrite to replace it")


def _take_snapshot(out: pathlib.Path, work: pathlib.Path, console: Console) -> None:
    """Puts the prose of this Python installation into `work`: that of an earlier corpus at `out` if there is one."""
    (work / GENERATED).mkdir()
    previous, snapshot = (folder / GENERATED / SNAPSHOT_FILE for folder in (out, work))
    if previous.is_file():
        shutil.copy2(previous, snapshot)
    else:
        console.print("Gathering the English prose of this Python installation ...")
        write_python_prose(snapshot)


def _write_report(directory: pathlib.Path, report: dict[str, Any]) -> None:
    write_text(directory / REPORT, json.dumps(sealed(report), indent=1, ensure_ascii=False) + "\n")


def _stamp(files: Sequence[SourceFile]) -> str:
    return _hash(repr([file.stamp() for file in files]))


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
