"""The temporary directory in which a corpus is prepared."""
import contextlib
import errno
import os
import pathlib
import shutil
from collections.abc import Iterator

from spanbert_jax.common.directories import remove_directory
from spanbert_jax.common.errors import UserError
from spanbert_jax.common.locks import LockHeld, exclusive_lock
from spanbert_jax.corpus.corpus import DATASET_INFO, REPORT, TOKENIZER, UNIGRAM

GENERATED = "source"  # directory in a corpus for the files of generated sources
_FILES = {REPORT, f"{REPORT}.tmp", f"{REPORT}.new", TOKENIZER, UNIGRAM, DATASET_INFO, "features.json"}


@contextlib.contextmanager
def workspace(out: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields an empty, locked directory beside `out`. It is removed at the end unless it was renamed.

    Raises UserError if `out` is something other than a corpus, another process prepares it, or it cannot be written.
    """
    _check_replaceable(out)
    work = out.absolute().with_name(f".{out.absolute().name}.partial")
    remove_if_empty = True
    try:
        work.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(work, os.O_RDONLY) as lock:
            remove_if_empty = False
            if not lock.supported:
                raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
            try:
                for path in work.iterdir():  # left by a process that was killed
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                yield work
            finally:
                remove_directory(work)
    except LockHeld:
        remove_if_empty = False
        raise UserError(f"out {out}: another prepare is writing it; wait for it, or give another --out") from None
    except OSError as error:
        raise UserError(f"out {out}: cannot be written ({error.strerror or error}); make room there, or give another "
                        "--out") from None
    finally:
        if remove_if_empty:
            with contextlib.suppress(OSError):
                work.rmdir()


def _check_replaceable(out: pathlib.Path) -> None:
    """Raises UserError unless `out` does not exist or is a corpus, finished or not."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"out {out}: is a file, so it is not a corpus to be replaced; give another directory")
    for path in sorted(out.iterdir()):
        known = path.name in _FILES or ".array_record-" in path.name
        if path.name != GENERATED and not (known and path.is_file()):
            raise UserError(f"out {out}: holds {path.name!r}, so it is not a corpus to be replaced; give another "
                            "directory")


