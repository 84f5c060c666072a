"""The temporary directory in which a corpus is prepared, and what it may replace."""
import contextlib
import pathlib
from collections.abc import Iterator

from spanbert_jax.common.directories import partial_directory, replace_directory
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.files import describe_failure, temporary_names
from spanbert_jax.common.locks import LockHeld
from spanbert_jax.corpus.corpus import DATASET, DATASET_INFO, REPORT, SHARD, TOKENIZER, UNIGRAM
from spanbert_jax.corpus.sources.python_prose import SNAPSHOT_FILE

GENERATED = "source"  # directory in a corpus for the files of generated sources
# With those that killed processes of earlier versions left.
_FILES = {REPORT, f"{REPORT}.tmp", f"{REPORT}.new", TOKENIZER, UNIGRAM, DATASET_INFO, "features.json"}


@contextlib.contextmanager
def workspace(out: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields an empty directory beside `out`. It is removed at the end unless `replace_corpus` put it in place.

    Raises UserError if `out` is something other than a corpus, another process prepares it, or it cannot be written.
    """
    _check_replaceable(out)
    try:
        with partial_directory(out.absolute().parent, out.absolute().name, exclusive=True) as work:
            yield work
    except LockHeld:
        raise UserError(f"out {out}: another prepare is writing it; wait for it, or give another --out") from None
    except OSError as error:
        raise UserError(f"out {out}: cannot be written ({describe_failure(error, out)}); make room there, or give "
                        "another --out") from None


def replace_corpus(work: pathlib.Path, out: pathlib.Path) -> None:
    """Gives the finished corpus of a `workspace` its name. Raises UserError like it."""
    _check_replaceable(out)
    replace_directory(work, out.absolute())


def _check_replaceable(out: pathlib.Path) -> None:
    """Raises UserError unless `out` does not exist, is an empty directory, or a corpus, finished or not."""
    if out.is_symlink():
        raise UserError(f"out {out}: is a link, which is not replaced; give the directory itself")
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"out {out}: is a file, so it is not a corpus to be replaced; give another directory")
    found = sorted(out.iterdir())
    shards = {path.name for path in found if path.name.startswith(f"{DATASET}-") and SHARD in path.name}
    leftovers = temporary_names(REPORT, "tmp")
    for path in found:
        known = path.name in _FILES or path.name in shards or leftovers.fullmatch(path.name)
        if path.is_symlink() or not (_is_generated(path) or (known and path.is_file())):
            raise UserError(f"out {out}: holds {path.name!r}, so it is not a corpus to be replaced; give another "
                            "directory")
    if found and not shards:
        raise UserError(f"out {out}: holds {found[0].name!r} and no rows, so it is not a corpus to be replaced; give "
                        "another directory")


def _is_generated(path: pathlib.Path) -> bool:
    return path.name == GENERATED and path.is_dir() and {entry.name for entry in path.iterdir()} <= {SNAPSHOT_FILE}
