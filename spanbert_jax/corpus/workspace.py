"""Where a corpus is made: a directory beside the one it is for, which takes its name when complete or is removed."""
import contextlib
import fcntl
import os
import pathlib
import shutil
from collections.abc import Iterator

from spanbert_jax.common.errors import UserError
from spanbert_jax.corpus.corpus import DATASET_INFO, REPORT, TOKENIZER, UNIGRAM

GENERATED = "source"  # directory for the files of generated sources
_FILES = {REPORT, f"{REPORT}.new", TOKENIZER, UNIGRAM, DATASET_INFO, "features.json"}


@contextlib.contextmanager
def workspace(out: pathlib.Path) -> Iterator[pathlib.Path]:
    """An empty directory beside `out`, held by this process and removed at the end unless put in place.

    Raises:
      UserError: `out` holds something that is no corpus, another process is writing it, or the disk does not take it.
    """
    _check_replaceable(out)
    work = out.absolute().with_name(f".{out.absolute().name}.partial")
    handle, mine = -1, None  # not known yet
    try:
        work.mkdir(parents=True, exist_ok=True)
        handle = os.open(work, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            mine = False
            raise UserError(f"out {out}: another prepare is writing it; wait for it, or give another --out") from None
        mine = True
        _empty(work)  # left by a run that was killed
        yield work
    except OSError as error:
        raise UserError(f"out {out}: cannot be written ({error.strerror or error}); make room there, or give another "
                        "--out") from None
    finally:
        if mine:
            _remove(work)
        elif mine is None:
            with contextlib.suppress(OSError):
                work.rmdir()
        if handle >= 0:
            os.close(handle)


def put_in_place(work: pathlib.Path, out: pathlib.Path) -> None:
    """Gives the finished directory its name; stopped in between, what was there stays or comes back."""
    old = work.with_suffix(".old")
    _remove(old)
    try:
        if out.exists():
            out.rename(old)
        work.rename(out)
    except BaseException:
        if old.exists() and not out.exists():
            old.rename(out)
        raise
    finally:
        _remove(old)


def _check_replaceable(out: pathlib.Path) -> None:
    """Refuses to replace anything but a corpus, finished or not."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"out {out}: is a file, so it is not a corpus to be replaced; give another directory")
    for path in sorted(out.iterdir()):
        named = path.name in _FILES or ".array_record-" in path.name
        if not (named and path.is_file() or path.name == GENERATED):
            raise UserError(f"out {out}: holds {path.name!r}, so it is not a corpus to be replaced; give another "
                            "directory")


def _empty(directory: pathlib.Path) -> None:
    for path in directory.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _remove(directory: pathlib.Path) -> None:
    if directory.exists():
        try:
            shutil.rmtree(directory)
        except BaseException:  # a stop that came during this: what is left goes too
            shutil.rmtree(directory, ignore_errors=True)
            raise
