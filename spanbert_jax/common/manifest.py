"""Manifests: size and checksum of each file of a folder, written with what is trusted later, and compared before use.

A manifest reveals later changes on the disk: libraries read a flipped bit silently. It does not protect against a
person who changes both. Its content is untrusted: it is only compared with files.
"""
import concurrent.futures
import hashlib
import json
import os
import pathlib
import stat
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from spanbert_jax.common.errors import UserError
from spanbert_jax.common.files import sync_directory, write_text
from spanbert_jax.common.identity import content_digest, file_stamp
from spanbert_jax.common.json_files import JsonError, parse_json, read_limited

MANIFEST_FILE = "spanbert_jax.integrity.json"  # of a folder, in it
README_FILE = "README.md"  # a file for people, which may change

_CHUNK_BYTES = 1 << 20
_THREADS = min(16, os.cpu_count() or 1)
_intact: dict[pathlib.Path, list[tuple[int, ...] | None]] = {}  # stamps of a folder's files when they were compared

Files = dict[str, tuple[int, int]]  # size in bytes and CRC-32 of each file, by its path in the folder


class ManifestError(Exception):
    """A manifest is invalid. The message is a short reason."""


def write_manifest(path: pathlib.Path, fields: Mapping[str, Any], files: Files) -> None:
    """Writes a manifest of files with further fields, which JSON can hold. Raises OSError if that fails."""
    write_text(path, _render({**fields, "files": files}), sync=True)


def read_manifest(path: pathlib.Path) -> tuple[dict[str, Any], Files]:
    """Returns the further fields and the files of a manifest.

    Raises ManifestError if it is missing or differs from what was written.
    """
    try:
        content = read_limited(path)
        body: Any = parse_json(content, dict[str, Any])["body"]
        unchanged = _render(body).encode() == content
    except FileNotFoundError:
        raise ManifestError("missing") from None
    except OSError as error:
        raise ManifestError(f"cannot be read: {error.strerror}") from None
    except (JsonError, KeyError):
        unchanged = False
    if not unchanged:
        raise ManifestError("contents differ")
    try:
        files = {file: (size, checksum) for file, (size, checksum) in body.pop("files").items()}
        if all(type(number) is int and number >= 0 for entry in files.values() for number in entry):
            return body, files
    except (TypeError, ValueError, LookupError, AttributeError):
        pass
    raise ManifestError("was not written by this program")


def measure(folder: pathlib.Path, names: Iterable[str]) -> Files:
    """Flushes files of a folder to the disk, and returns size and checksum of each. Raises OSError if that fails."""
    names = list(names)
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        checksums = list(pool.map(lambda name: checksum(folder / name, sync=True), names))
    for parent in {folder / parent for name in names for parent in pathlib.PurePath(name).parents}:
        sync_directory(parent)
    return {name: ((folder / name).stat().st_size, found) for name, found in zip(names, checksums)}


def difference(folder: pathlib.Path, files: Files, sizes: Mapping[str, int], *, full: bool = True,
               on_bytes: Callable[[int], None] | None = None) -> str | None:
    """Returns the first file that differs from its manifest and how, or None if all agree.

    Args:
      files: of the manifest. Other files in the folder are ignored.
      sizes: of the files that are there, by their paths in the folder; no other is opened.
      full: read every byte, instead of comparing sizes only.
      on_bytes: called with the number of bytes read since the last call, from several threads.
    """
    for file, (size, _) in sorted(files.items()):
        if file not in sizes:
            return f"{file}: missing"
        if sizes[file] != size:
            return f"{file}: size {sizes[file]} where {size} was written"
    return _first_changed(folder, files, on_bytes or (lambda count: None)) if full else None


def seal_folder(folder: pathlib.Path) -> None:
    """Writes the manifest of all files in a folder but README.md. Raises OSError if that fails."""
    write_manifest(folder / MANIFEST_FILE, {},
                   measure(folder, (name for name in file_sizes(folder) if name not in (MANIFEST_FILE, README_FILE))))


def folder_difference(folder: pathlib.Path, on_bytes: Callable[[int], None] | None = None) -> str | None:
    """Returns the first file of a folder that differs from its manifest and how, or None if all agree.

    The manifest itself may be the file that is missing or differs. Links to files are followed.
    """
    try:
        _, files = read_manifest(folder / MANIFEST_FILE)
    except ManifestError as error:
        return f"{MANIFEST_FILE}: {error}"
    return difference(folder, files, _sizes_of(folder, files), on_bytes=on_bytes)


def foreign_file(folder: pathlib.Path) -> str | None:
    """Returns a file or link in a folder that its manifest lacks, besides README.md; None without a valid manifest."""
    try:
        _, files = read_manifest(folder / MANIFEST_FILE)
    except ManifestError:
        return None
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*")
             if path.is_symlink() or not path.is_dir()}
    return min(found - {MANIFEST_FILE, README_FILE, *files}, default=None)


def require_intact(folder: pathlib.Path) -> None:
    """Raises UserError if a file of a folder differs from its manifest; a folder without a manifest is accepted.

    A folder is read once in a process, and again if it has changed.
    """
    if not (folder / MANIFEST_FILE).is_file():
        return
    if None not in (before := _stamps(folder)) and _intact.get(folder) == before:
        return
    if found := folder_difference(folder):
        raise UserError(f"{folder}: {found}: not what was written; fetch or make the folder again, or, if you changed "
                        f"it on purpose, delete {MANIFEST_FILE} in it")
    _intact[folder] = before


def folder_digest(folder: pathlib.Path) -> str:
    """A hash of names and content of the files in a folder's manifest; of all but README.md if there is none."""
    try:
        names = [*read_manifest(folder / MANIFEST_FILE)[1]]
    except ManifestError:
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    files = {name: content_digest(folder / name) for name in names if name != README_FILE}
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def file_sizes(folder: pathlib.Path) -> dict[str, int]:
    """Returns the bytes of each regular file below a folder, sorted by path. Raises OSError if it cannot be listed."""
    def fail(error: OSError) -> None:
        raise error

    sizes = {}
    for parent, _, names in os.walk(folder, onerror=fail):
        for name in names:
            status = os.lstat(os.path.join(parent, name))
            if stat.S_ISREG(status.st_mode):
                sizes[pathlib.Path(parent, name).relative_to(folder).as_posix()] = status.st_size
    return dict(sorted(sizes.items()))


def folder_size(folder: pathlib.Path) -> int:
    """Bytes of the files in a folder; 0 if it has been deleted."""
    try:
        return sum(file_sizes(folder).values())
    except OSError:
        return 0


def checksum(path: pathlib.Path, sync: bool = False, on_bytes: Callable[[int], None] = lambda count: None,
             limit: int | None = None) -> int:
    """Returns the CRC-32 of a file, or of its first `limit` bytes. Other threads run meanwhile."""
    found, buffer = 0, memoryview(bytearray(_CHUNK_BYTES))
    with open(path, "rb", buffering=0) as file:
        if sync:
            os.fsync(file.fileno())
        while count := file.readinto(buffer if limit is None else buffer[:limit]):
            found = zlib.crc32(buffer[:count], found)
            on_bytes(count)
            limit = None if limit is None else limit - count
    return found


def _sizes_of(folder: pathlib.Path, files: Iterable[str]) -> dict[str, int]:
    """The bytes of those of the files that are there."""
    sizes = {}
    for name in files:
        path = pathlib.PurePosixPath(name)
        if not path.is_absolute() and ".." not in path.parts and (folder / path).is_file():
            sizes[name] = (folder / path).stat().st_size
    return sizes


def _stamps(folder: pathlib.Path) -> list[tuple[int, ...] | None]:
    """The stamps of a folder's manifest and files; None for one that is missing or has just changed."""
    try:
        _, files = read_manifest(folder / MANIFEST_FILE)
    except ManifestError:
        return [None]
    return [file_stamp(folder / name) for name in (MANIFEST_FILE, *files)]


def _first_changed(folder: pathlib.Path, files: Files, on_bytes: Callable[[int], None]) -> str | None:
    pool = concurrent.futures.ThreadPoolExecutor(_THREADS)
    try:
        jobs = [(file, written, pool.submit(checksum, folder / file, on_bytes=on_bytes))
                for file, (_, written) in sorted(files.items())]
        for file, written, job in jobs:
            try:
                if job.result() != written:
                    return f"{file}: contents differ"
            except OSError as error:
                return f"{file}: cannot be read: {error.strerror}"
        return None
    finally:
        pool.shutdown(cancel_futures=True)


def _render(body: Any) -> str:
    """Returns the only valid text of a manifest, so that every change is detected."""
    crc32 = zlib.crc32(json.dumps(body, sort_keys=True).encode())
    return json.dumps({"body": body, "crc32": crc32}, indent=1, sort_keys=True) + "\n"
