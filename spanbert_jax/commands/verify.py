"""Read every byte of what was written, and compare it with the checksums that were taken then.

  spanbert-jax verify runs/squad
  spanbert-jax verify models/spanbert corpora/mine answers.jsonl.partial
  spanbert-jax verify ~/.cache/spanbert_jax

A path is a workdir, a folder of checkpoints, a model, an export, a corpus, an incomplete output of predict, or a folder
with any of them in it. Nothing is changed, and runs may write meanwhile. The exit status is 1 if a file is damaged;
quarantined checkpoints do not count. What has no checksums, such as models of other programs, is not listed.
"""
import argparse
import contextlib
import functools
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import rich.progress

from spanbert_jax.checkpoints import folder as names
from spanbert_jax.checkpoints.manifest import verify as verify_step
from spanbert_jax.cluster.exit_codes import DONE, FAILED
from spanbert_jax.common.console import make_console, make_table
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.formatting import format_bytes
from spanbert_jax.common.manifest import MANIFEST_FILE, folder_difference, folder_size
from spanbert_jax.common.paths import user_path
from spanbert_jax.corpus.corpus import DATASET_INFO, REPORT, open_corpus

OnBytes = Callable[[int], None]
_ROWS = 1024  # of a corpus that are read at a time


class _Artefact(NamedTuple):
    """Files with checksums."""
    kind: str
    path: pathlib.Path
    size: int  # bytes
    check: Callable[[OnBytes], str | None]  # which file is damaged and how; None if none is


def verify(path: str | os.PathLike, *, on_bytes: OnBytes = lambda count: None) -> list[dict[str, Any]]:
    """Compares every byte below a path with the checksums that were taken when it was written.

    Args:
      path: a workdir, checkpoints, a model, an export, a corpus, an incomplete output, or a folder with some in it.
      on_bytes: called with the number of bytes after each read.

    Returns:
      For each of them "path", "kind", "bytes", and "unsound": which file is damaged and how, or None.

    Raises:
      UserError: there is nothing with checksums.
    """
    return [{"path": str(found.path), "kind": found.kind, "bytes": found.size, "unsound": found.check(on_bytes)}
            for found in _find(user_path(path))]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this command."""
    parser.add_argument("path", nargs="+", metavar="PATH", help="what to verify, or a folder with it in it")
    parser.add_argument("--json", action="store_true", help="print the results as one line of JSON")


def run(args: argparse.Namespace) -> int:
    """Verifies, and prints a table."""
    total = sum(found.size for path in args.path for found in _find(user_path(path)))
    with reading_progress(total) as on_bytes:
        results = [result for path in args.path for result in verify(path, on_bytes=on_bytes)]
    if args.json:
        print(json.dumps(results))
    else:
        table = make_table("path", "kind", "size", "intact", right=("size",))
        for result in results:
            table.add_row(result["path"], result["kind"], format_bytes(result["bytes"]), result["unsound"] or "yes")
        make_console().print(table)
    return FAILED if any(result["unsound"] for result in results) else DONE


@contextlib.contextmanager
def reading_progress(total: int) -> Iterator[OnBytes]:
    """Shows the progress of reading so many bytes, and the speed at the end. Yields what is called after each read."""
    console, began = make_console(stderr=True), time.monotonic()
    with rich.progress.Progress(
            *rich.progress.Progress.get_default_columns(), rich.progress.TransferSpeedColumn(), console=console,
            transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("verifying", total=total)
        yield lambda count: bar.advance(task, count)
        done = bar.tasks[0].completed
    seconds = max(time.monotonic() - began, 1e-9)
    console.print(f"read {format_bytes(done)} at {format_bytes(done / seconds)}/s")


def _find(path: pathlib.Path) -> list[_Artefact]:
    """What has checksums at or below a path. Raises UserError if there is nothing."""
    if not path.exists():
        raise UserError(f"{path}: no such file or directory; give what is to be verified")
    found = list(_below(path) if path.is_dir() else _partials(path.parent, [path.name]))
    if not found:
        raise UserError(f"{path}: nothing here has checksums; give a workdir, checkpoints, a model, a corpus, or an "
                        "incomplete output of predict, made by this version, or a folder with some in it")
    return found


def _below(top: pathlib.Path) -> Iterator[_Artefact]:
    if top.name.isdecimal() and names.manifest_path(top.parent, int(top.name)).is_file():  # a single step
        yield _step(top.parent, int(top.name))
        return
    for parent, folders, files in os.walk(top):
        folder = pathlib.Path(parent)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if MANIFEST_FILE in files:
            folders.clear()
            kind = "model" if "config.json" in files else "cache"
            yield _Artefact(kind, folder, folder_size(folder), functools.partial(folder_difference, folder))
        elif {REPORT, DATASET_INFO} <= set(files):
            folders.clear()
            yield _Artefact("corpus", folder, folder_size(folder), functools.partial(_corpus_difference, folder))
        elif folder.name == names.FOLDER:
            folders.clear()
            yield from (_step(folder, step) for step in names.list_steps(folder))
        yield from _partials(folder, files)


def _step(folder: pathlib.Path, step: int) -> _Artefact:
    path = folder / str(step)
    return _Artefact("checkpoint", path, folder_size(path), lambda on_bytes: verify_step(
        path, names.manifest_path(folder, step), step, on_bytes=on_bytes))


def _partials(folder: pathlib.Path, files: list[str]) -> Iterator[_Artefact]:
    """Incomplete outputs among the files of a folder."""
    from spanbert_jax.inference.partial import manifest_of, partial_difference
    for path in (folder / name for name in sorted(files)):
        if manifest_of(path).is_file():
            yield _Artefact("predictions", path, path.stat().st_size, functools.partial(partial_difference, path))


def _corpus_difference(folder: pathlib.Path, on_bytes: OnBytes) -> str | None:
    """Which file of a corpus is damaged and how; None if none is. Reads every row, whose checksums ArrayRecord has."""
    import numpy as np

    from spanbert_jax.corpus import RowSource
    try:
        corpus = open_corpus(folder)
        for split in (split for split, count in corpus.num_rows.items() if count):
            rows, size = RowSource(corpus, split), sum(shard.stat().st_size for shard in corpus.shards(split))
            for first in range(0, len(rows), _ROWS):
                chunk = np.arange(first, min(first + _ROWS, len(rows)))
                rows.rows(chunk)
                on_bytes(size * len(chunk) // len(rows))
    except UserError as error:
        return str(error)
    return None
