"""The predictions of a file while they are incomplete: OUTPUT.partial, and its manifest OUTPUT.partial.of.

The manifest has the size and the checksum of what has been written, and what it was made from.
"""
import contextlib
import itertools
import logging
import os
import pathlib
import stat
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import BinaryIO

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.files import publish, to_utf8
from spanbert_jax.common.locks import LockHeld, exclusive_lock
from spanbert_jax.common.manifest import ManifestError, checksum, read_manifest, write_manifest

ENDING, MANIFEST_ENDING = ".partial", ".of"
logger = logging.getLogger("spanbert_jax")


class Partial:
    """An incomplete output that this process holds the lock of."""

    def __init__(self, path: pathlib.Path, file: BinaryIO, identity: Mapping[str, str], size: int, crc32: int):
        """Takes over a file whose first `size` bytes have this CRC-32; what follows was never finished."""
        self.path, self._file, self._identity = path, file, identity
        self._size, self._crc32 = size, crc32
        self._cut(size, crc32)

    @property
    def lines(self) -> int:
        """The number of lines in it."""
        with open(self.path, "rb") as lines:
            return sum(1 for _ in lines)

    def keep(self, lines: int) -> None:
        """Removes all but the first lines."""
        size = crc32 = 0
        with open(self.path, "rb") as kept:
            for line in itertools.islice(kept, lines):
                size, crc32 = size + len(line), zlib.crc32(line, crc32)
        self._cut(size, crc32)

    def append(self, text: str) -> None:
        """Writes whole lines to the disk. If that fails, or is interrupted, they are removed by the next call."""
        data = to_utf8(text)
        left = memoryview(data)
        while left:
            left = left[self._file.write(left):]
        os.fsync(self._file.fileno())
        self._size, self._crc32 = self._size + len(data), zlib.crc32(data, self._crc32)
        self._write_manifest()

    def verify(self) -> None:
        """Raises UserError if the disk has another content than was written."""
        if damage := partial_difference(self.path):
            raise UserError(f"{self.path.parent / damage}: changed after it was written; run the same command again")

    def complete(self, output: pathlib.Path) -> None:
        """Gives it its final name. Raises FileExistsError if something has this name by now."""
        publish(self.path, output)
        manifest_of(self.path).unlink()

    def remove(self) -> None:
        """Removes it."""
        self.path.unlink()
        manifest_of(self.path).unlink()

    def _cut(self, size: int, crc32: int) -> None:
        self._file.truncate(size)
        self._size, self._crc32 = size, crc32
        self._write_manifest()

    def _write_manifest(self) -> None:
        write_manifest(manifest_of(self.path), self._identity, {self.path.name: (self._size, self._crc32)})


def partial_of(output: pathlib.Path) -> pathlib.Path:
    """The path of an output while it is incomplete."""
    return output.with_name(output.name + ENDING)


def manifest_of(partial: pathlib.Path) -> pathlib.Path:
    """The path of the manifest of an incomplete output."""
    return partial.with_name(partial.name + MANIFEST_ENDING)


@contextlib.contextmanager
def open_partial(output: pathlib.Path, identity: Mapping[str, str], inputs: Sequence[str]) -> Iterator[Partial]:
    """Continues the incomplete output of an earlier call, or begins one, and holds its lock.

    One that was made from something else, or is damaged, is renamed to OUTPUT.partial-N, and the log says why.

    Args:
      identity: what the predictions depend on, as a hash of each part by its name for the log.
      inputs: the files that are predicted.

    Raises:
      UserError: the output exists, another call writes it, one of the inputs is the incomplete output, or that is
        something that no call has written.
      OSError: the disk cannot be written.
    """
    path = partial_of(output)
    for _ in range(2):  # the second time, nothing is there
        _require_own(path)
        try:
            with exclusive_lock(path, os.O_RDWR | os.O_CREAT | os.O_APPEND) as lock:
                _check_names(output, path, lock.file, inputs)
                size, crc32, other = _describe(path, lock.file, identity)
                if not other:
                    with open(lock.file, "ab", buffering=0, closefd=False) as file:
                        yield Partial(path, file, identity, size, crc32)
                    return
                _set_aside(path, other)
        except LockHeld:
            raise UserError(f"{path}: another call is writing it; wait for that, or give another output") from None
    raise UserError(f"{path}: changed by another program; wait for that, or give another output")


def partial_difference(path: pathlib.Path, on_bytes: Callable[[int], None] = lambda count: None) -> str | None:
    """Returns how an incomplete output differs from its manifest, or None if it does not.

    More bytes than in the manifest are no difference: a call was killed before it noted them, and they are not used.
    """
    try:
        _, files = read_manifest(manifest_of(path))
        (size, crc32), = files.values()
        if (found := path.stat().st_size) < size:
            return f"{path.name}: size {found} where {size} was written"
        return None if checksum(path, on_bytes=on_bytes, limit=size) == crc32 else f"{path.name}: contents differ"
    except ManifestError as error:
        return f"{manifest_of(path).name}: {error}"
    except ValueError:
        return f"{manifest_of(path).name}: was not written by this program"
    except OSError as error:
        return f"{path.name}: cannot be read: {error.strerror}"


def _require_own(path: pathlib.Path) -> None:
    """Raises UserError if what is at the path of an incomplete output, or of its manifest, was not written by a call.

    A file without a manifest, unless it is empty, is somebody's own. So is a link, which leads to another file.
    """
    manifest = manifest_of(path)
    for file in (path, manifest):
        if os.path.lexists(file) and not stat.S_ISREG(os.lstat(file).st_mode):
            raise UserError(f"{file}: is no file that predict has written; move it away, or give another output")
    if os.path.lexists(path) and path.stat().st_size and not os.path.lexists(manifest):
        raise UserError(f"{path}: is no file that predict has written ({manifest.name} is missing); move it away, or "
                        "give another output")
    if os.path.lexists(manifest) and not os.path.lexists(path):
        try:
            read_manifest(manifest)
        except ManifestError:
            raise UserError(f"{manifest}: is no file that predict has written; move it away, or give another "
                            "output") from None


def _check_names(output: pathlib.Path, path: pathlib.Path, file: int, inputs: Sequence[str]) -> None:
    """Raises UserError unless the locked file is the incomplete output, its output is missing, and no input is it."""
    locked = os.fstat(file)
    if not (os.path.exists(path) and os.path.samestat(locked, os.lstat(path))):
        raise UserError(f"{path}: another call has just finished or renamed it; run the same command again")
    if os.path.lexists(output):
        raise UserError(f"{output}: exists already and is not overwritten; give another file, or remove it")
    for name in inputs:
        if os.path.samestat(locked, os.stat(name)):
            raise UserError(f"{name}: is an input and the incomplete output of {output}; give another output")


def _describe(path: pathlib.Path, file: int, identity: Mapping[str, str]) -> tuple[int, int, str]:
    """Size and CRC-32 of what an earlier call has finished; and why that cannot be continued, or ""."""
    manifest = manifest_of(path)
    if not manifest.exists() and not os.fstat(file).st_size:
        return 0, 0, ""
    if damage := partial_difference(path):
        return 0, 0, damage  # also one of an older version, whose manifest was only a hash
    fields, files = read_manifest(manifest)
    changed = [name for name in identity if fields.get(name) != identity[name]]
    (size, crc32), = files.values()
    return size, crc32, f"it was made with another {', '.join(changed)}" if changed else ""


def _set_aside(path: pathlib.Path, reason: str) -> None:
    """Renames an incomplete output that cannot be continued, and its manifest, to names that are free."""
    names = (path.with_name(f"{path.name}-{number}") for number in itertools.count(1))
    aside = next(name for name in names if not os.path.lexists(name) and not os.path.lexists(manifest_of(name)))
    publish(path, aside)
    publish(manifest_of(path), manifest_of(aside))
    logger.warning("%s: %s; it is now %s, and prediction starts from the first input", path, reason, aside.name)
