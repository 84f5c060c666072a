"""`prepare`: reads sources and writes a complete corpus directory, or nothing."""
import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from tokenizers import Tokenizer

from spanbert_jax.common.console import make_console
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.files import write_text
from spanbert_jax.common.formatting import format_change
from spanbert_jax.common.paths import Paths, join_paths, split_paths, user_path, utf8_path
from spanbert_jax.common.settings import from_dict, require
from spanbert_jax.corpus.corpus import REPORT, TOKENIZER, UNIGRAM, Corpus, file_digests, finish_report, open_corpus
from spanbert_jax.corpus.processes import cpu_cores, map_in_order, map_in_processes
from spanbert_jax.corpus.report import ProgressBar, make_report, print_report
from spanbert_jax.corpus.rows import RowBuilder, Rows, RowSettings, make_chunks
from spanbert_jax.corpus.scan import SPLITS, TRAIN, VALIDATION, SourceScan, scan_sources
from spanbert_jax.corpus.settings import ACCENTS, CorpusSettings
from spanbert_jax.corpus.sources import FieldNames, SourceFile, resolve_sources
from spanbert_jax.corpus.sources.python_prose import PYTHON, SNAPSHOT_FILE, write_python_prose
from spanbert_jax.corpus.tokenization import CorpusStats
from spanbert_jax.corpus.workspace import GENERATED, replace_corpus, workspace
from spanbert_jax.text import load_tokenizer, special_ids, train_tokenizer, vocabulary_size

_POLL_SECONDS = 0.5
_SMALL_CORPUS = 3_000_000  # characters; below this, starting processes takes longer than it saves


def prepare(sources: Paths, out: str | os.PathLike, *, lowercase: bool | None = None, seed: int = 0,
            workers: int | None = None, overwrite: bool = False, progress: bool = True, **settings: Any) -> Corpus:
    """Turns documents into rows of token ids.

    Everything is written to a temporary directory, which is renamed to `out` when it is complete. Another call with
    unchanged sources and settings returns at once; with changed ones it raises an error that names the difference.

    Args:
      sources: files, directories, globs, "python" (the prose in this Python installation) or "tfds:NAME[:SPLIT]".
      lowercase: lower-case the text; None follows the vocabulary, and keeps case if one is trained.
      seed: seed of the random choices in pairs.
      workers: number of processes; None for one per core. It does not change the rows.
      overwrite: replace a corpus with other sources or settings.
      progress: show progress and the report.
      **settings: other fields of `CorpusSettings`, which describes them: tokenizer or vocab_size, length, blocks,
        format and so on. None leaves a field at its default.

    Raises:
      UserError: a setting or source is invalid, or `out` holds something else.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    fields = from_dict(CorpusSettings, {"sources": [join_paths(sources)], **given}, "prepare")
    return prepare_corpus(fields, out, lowercase=lowercase, seed=seed, workers=workers, overwrite=overwrite,
                          progress=progress)


def prepare_corpus(settings: CorpusSettings, out: str | os.PathLike, *, lowercase: bool | None = None, seed: int = 0,
                   workers: int | None = None, overwrite: bool = False, progress: bool = True) -> Corpus:
    """`prepare` with all settings in one object. Raises UserError like it."""
    out = utf8_path(out)
    settings = settings.replace(sources=tuple(path for source in settings.sources for path in split_paths(source)))
    settings.validate("")
    require(seed >= 0, "seed", seed, "must be at least 0")
    require(workers is None or workers >= 1, "workers", workers, "must be at least 1")
    given = _given_tokenizer(settings, lowercase)
    stored = _stored_settings(settings, given, lowercase, seed)
    console = make_console(stderr=True, quiet=not progress)
    previous = open_corpus(out).report if not overwrite and (out / REPORT).exists() else None
    if previous:
        _require_equal_settings(out, previous["settings"], {**previous["settings"], **stored})
        if previous["stamp"] == _stamp(resolve_sources(settings.sources, settings.format, out / GENERATED)):
            console.print(f"Corpus {out} is up to date: nothing to do.")
            return open_corpus(out)
    with workspace(out) as work:
        if PYTHON in settings.sources:
            _copy_or_write_prose(out, work, console)
        files = resolve_sources(settings.sources, settings.format, work / GENERATED)
        stamp = _stamp(files)  # before they are read: a later change makes another call read them again
        with ProgressBar("reading", None, "characters", progress) as bar:
            scan = scan_sources(files, FieldNames(settings.text_field, settings.annotation_field or None),
                                settings.validation_fraction, lambda document: bar.advance(len(document.text)))
        stored["content"] = scan.fingerprint
        if previous:
            _require_equal_settings(out, previous["settings"], stored)
            _write_report(out, {**previous, "stamp": stamp})
            console.print(f"Corpus {out} is up to date: its sources were touched or moved, but their content is the "
                          "same.")
            return open_corpus(out)
        if given is None:
            console.print(f"Training a vocabulary of {settings.vocab_size:,} tokens ...")
            given = _train_tokenizer(scan, settings, bool(lowercase))
        # Without the fields of a subclass, whose module every worker process would have to import.
        values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(CorpusSettings)}
        row_settings = RowSettings(given.to_str(), CorpusSettings(**values), seed)
        report = _write_corpus(work, scan, row_settings, workers, progress)
        _write_report(work, {"settings": stored, **report, "stamp": stamp})
        replace_corpus(work, out)
    print_report(report, str(out), console)
    return open_corpus(out)


def wait_for_corpus(path: str | pathlib.Path) -> Corpus:
    """Waits until another process has prepared the corpus at `path`, and opens it. Raises UserError like `open_corpus`.

    Waits without limit, until a signal raises: the launcher ends all processes of a run when one of them fails.
    """
    while not (user_path(path) / REPORT).exists():
        time.sleep(_POLL_SECONDS)
    return open_corpus(path)


def _train_tokenizer(scan: SourceScan, settings: CorpusSettings, lowercase: bool) -> Tokenizer:
    """Trains a tokenizer in a process of its own, which can be ended: the library does not react to signals."""
    options = {"vocab_size": settings.vocab_size, "lowercase": lowercase, "strip_accents": ACCENTS[settings.accents],
               "character_coverage": settings.character_coverage, "model": settings.tokenizer_model}
    work = [(scan, options)]
    with contextlib.closing(map_in_processes(_make_trainer, work, workers=1)) as results:
        (_, trained), = results
    return Tokenizer.from_str(trained)


def _make_trainer() -> Callable[[tuple[SourceScan, dict[str, Any]]], str]:
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    return lambda work: train_tokenizer(_TrainingTexts(work[0]), **work[1]).to_str()


@dataclasses.dataclass(frozen=True)
class _TrainingTexts:
    """The texts of the training documents, for several iterations."""
    scan: SourceScan

    def __iter__(self) -> Iterator[str]:
        return (document.text for document in self.scan.documents(TRAIN))


class _RowStream:
    """Rows of the splits, and the statistics that are known once all rows have been read."""

    def __init__(self, scan: SourceScan, settings: RowSettings, vocab_size: int, workers: int, bar: ProgressBar):
        self.unigram, self.max_segments = np.zeros(vocab_size, np.int64), 1
        self.stats: dict[str, CorpusStats] = {}
        self._scan, self._settings, self._workers, self._bar = scan, settings, workers, bar

    def rows(self, split: int) -> Generator[Rows]:
        """Yields the rows of a split, chunk by chunk."""
        stats = self.stats[SPLITS[split]] = CorpusStats()
        chunks = make_chunks(self._scan.documents(split), split, self._settings.corpus.blocks)
        make_builder = functools.partial(RowBuilder, self._settings)
        for chunk, (rows, chunk_stats) in map_in_order(make_builder, chunks, self._workers):
            stats.add(chunk_stats)
            if split == TRAIN:
                self.unigram += np.bincount(rows["tokens"].ravel(), minlength=len(self.unigram))
            self.max_segments = max(self.max_segments, int(rows["segments"].max(initial=1)))
            self._bar.advance(sum(len(document.text) for document in chunk.documents))
            yield rows


def _write_corpus(work: pathlib.Path, scan: SourceScan, settings: RowSettings, workers: int | None,
                  progress: bool) -> dict[str, Any]:
    """Builds all rows and writes every file but the report into `work`. Returns the results for the report."""
    from spanbert_jax.corpus.builder import write_rows  # imports TFDS, which is slow

    tokenizer, length = Tokenizer.from_str(settings.tokenizer), settings.corpus.length
    special = special_ids(tokenizer)
    splits = [split for split in (TRAIN, VALIDATION) if scan.split_characters(split)]
    characters = sum(map(scan.split_characters, splits))
    if workers is None:
        workers = cpu_cores() if characters >= _SMALL_CORPUS else 1
    vocab_size = vocabulary_size(tokenizer)
    start = time.monotonic()
    with ProgressBar("preparing", characters, "characters", progress) as bar, contextlib.ExitStack() as stack:
        stream = _RowStream(scan, settings, vocab_size, workers, bar)
        # Closing a generator ends its worker processes.
        rows = {SPLITS[split]: stack.enter_context(contextlib.closing(stream.rows(split))) for split in splits}
        write_rows(work, rows, length, vocab_size)
    seconds = time.monotonic() - start
    if not stream.stats[SPLITS[TRAIN]].counts["rows"]:
        raise UserError("the documents to train on hold only characters that the tokenizer drops; give other sources")
    stream.unigram[[special.pad, special.cls, special.sep, special.mask]] = 0
    np.save(work / UNIGRAM, stream.unigram)
    (work / TOKENIZER).write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    return {"length": length, "vocab_size": vocab_size, "special_ids": dataclasses.asdict(special),
            "max_blocks": 2 if settings.corpus.blocks == "pairs" else stream.max_segments,
            "contents": file_digests(work), **make_report(scan, stream.stats, length, seconds, workers)}


def _given_tokenizer(settings: CorpusSettings, lowercase: bool | None) -> Tokenizer | None:
    if bool(settings.tokenizer) == bool(settings.vocab_size):
        raise UserError("give either a tokenizer (vocab.txt or tokenizer.json) or a vocab_size to train one"
                        + (", not both" if settings.tokenizer else ""))
    if not settings.tokenizer:
        return None
    path = user_path(settings.tokenizer)
    if ((folder := path if path.is_dir() else path.parent) / REPORT).exists():
        open_corpus(folder)  # verifies its files
    return load_tokenizer(settings.tokenizer, lowercase)


def _stored_settings(settings: CorpusSettings, given: Tokenizer | None, lowercase: bool | None,
                     seed: int) -> dict[str, Any]:
    """Returns the settings in report.json, which later calls compare with theirs."""
    return {
        "format": settings.format, "text_field": settings.text_field,
        "annotation_field": settings.annotation_field or None,
        "tokenizer": _describe_training(settings) if given is None else _hash(given.to_str()),
        "lowercase": bool(lowercase) if given is None else None, "length": settings.length, "blocks": settings.blocks,
        "pack": settings.pack, "validation_fraction": settings.validation_fraction,
        "short_sequence_probability": settings.short_sequence_probability, "seed": seed}


def _describe_training(settings: CorpusSettings) -> str:
    """Returns how a vocabulary is trained, with the settings that differ from their defaults."""
    defaults = CorpusSettings()
    options = [f"{name}={getattr(settings, name)}" for name in ("character_coverage", "accents", "tokenizer_model")
               if getattr(settings, name) != getattr(defaults, name)]
    return ", ".join([f"trained, {settings.vocab_size} pieces", *options])


def _require_equal_settings(out: pathlib.Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    if different := [format_change(name, before.get(name), new, str) for name, new in now.items()
                     if before.get(name) != new]:
        raise UserError(f"corpus {out} was made from something else ({'; '.join(different)}): give another --out (in "
                        "training another --workdir), or prepare it with --overwrite to replace it")


def _copy_or_write_prose(out: pathlib.Path, work: pathlib.Path, console: Console) -> None:
    """Copies the prose of the previous corpus at `out` into `work`, or gathers it from this Python installation."""
    (work / GENERATED).mkdir()
    previous, snapshot = (folder / GENERATED / SNAPSHOT_FILE for folder in (out, work))
    if previous.is_file():
        shutil.copy2(previous, snapshot)
    else:
        console.print("Gathering the English prose of this Python installation ...")
        write_python_prose(snapshot)


def _write_report(directory: pathlib.Path, report: dict[str, Any]) -> None:
    write_text(directory / REPORT, json.dumps(finish_report(report), indent=1, ensure_ascii=False) + "\n")


def _stamp(files: Sequence[SourceFile]) -> str:
    return _hash(repr([file.stamp() for file in files]))


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
