"""The manifest of a step: size and checksum of each file, taken when the step was saved.

It reveals later changes on the disk: Orbax restores a flipped bit silently. It does not protect against a person who
changes both. Its content is untrusted: it is only compared with the files in the folder of the step.
"""
import concurrent.futures
import dataclasses
import itertools
import json
import os
import pathlib
import stat
import time
import zlib
from collections.abc import Callable
from typing import Any

from spanbert_jax.common.files import sync_directory, write_text

_CHUNK_BYTES = 1 << 20
_THREADS = min(16, os.cpu_count() or 1)


class ManifestError(Exception):
    """A manifest is invalid. The message is a short reason."""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Content of a manifest."""
    step: int
    saved_at: int  # time of the save, in seconds since 1970
    keep: int  # number of newest steps that the run keeps
    keep_every: int  # interval of the steps that the run keeps for good
    best: int  # the step with the best score so far; 0 if there is none
    files: dict[str, tuple[int, int]]  # size in bytes and CRC-32 of each file, by its path in the folder of the step


def write_manifest(path: pathlib.Path, step_folder: pathlib.Path, step: int, keep: int, keep_every: int,
                   best: int = 0) -> None:
    """Flushes every file of a step to the disk, reads it, and writes the manifest. Raises OSError if that fails."""
    sizes = file_sizes(step_folder)
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        checksums = list(pool.map(lambda file: _checksum(step_folder / file, sync=True), sizes))
    for parent in {step_folder / parent for file in sizes for parent in pathlib.PurePath(file).parents}:
        sync_directory(parent)
    files = {file: (size, checksum) for (file, size), checksum in zip(sizes.items(), checksums)}
    manifest = Manifest(step, int(time.time()), keep, keep_every, best, files)
    write_text(path, _render(dataclasses.asdict(manifest)), sync=True)


def read_manifest(path: pathlib.Path, step: int) -> Manifest:
    """Reads the manifest of a step. Raises ManifestError if it is missing or differs from what was written."""
    try:
        text = path.read_bytes().decode()
        body: Any = json.loads(text)["body"]
        unchanged = _render(body) == text
    except FileNotFoundError:
        raise ManifestError("missing") from None
    except OSError as error:
        raise ManifestError(f"cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        unchanged = False
    if not unchanged:
        raise ManifestError("contents differ")
    manifest = _parse(body)
    if manifest.step != step:
        raise ManifestError(f"is of step {manifest.step}")
    return manifest


def verify(step_folder: pathlib.Path, manifest: pathlib.Path, step: int, *, full: bool = True,
           on_bytes: Callable[[int], None] | None = None) -> str | None:
    """Returns the first file of a step that differs from its manifest and how, or None if the step is valid.

    Files that are not in the manifest are ignored. If `full`, every byte is read, otherwise only sizes are compared.
    `on_bytes` is called with the number of bytes read since the last call, from several threads.
    """
    try:
        files = read_manifest(manifest, step).files
        sizes = file_sizes(step_folder)
    except ManifestError as error:
        return f"{manifest.name}: {error}"
    except OSError as error:
        return f"{step_folder.name}: cannot be read: {error.strerror}"
    for file, (size, _) in sorted(files.items()):
        if file not in sizes:
            return f"{file}: missing"
        if sizes[file] != size:
            return f"{file}: size {sizes[file]} where {size} was written"
    return _first_changed(step_folder, files, on_bytes or (lambda count: None)) if full else None


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


def _first_changed(folder: pathlib.Path, files: dict[str, tuple[int, int]], on_bytes: Callable[[int], None]) -> (
        str | None):
    pool = concurrent.futures.ThreadPoolExecutor(_THREADS)
    try:
        jobs = [(file, checksum, pool.submit(_checksum, folder / file, on_bytes=on_bytes))
                for file, (_, checksum) in sorted(files.items())]
        for file, checksum, job in jobs:
            try:
                if job.result() != checksum:
                    return f"{file}: contents differ"
            except OSError as error:
                return f"{file}: cannot be read: {error.strerror}"
        return None
    finally:
        pool.shutdown(cancel_futures=True)


def _checksum(path: pathlib.Path, sync: bool = False, on_bytes: Callable[[int], None] = lambda count: None) -> int:
    """Returns the CRC-32 of a file. Other threads run meanwhile."""
    checksum, buffer = 0, memoryview(bytearray(_CHUNK_BYTES))
    with open(path, "rb", buffering=0) as file:
        if sync:
            os.fsync(file.fileno())
        while count := file.readinto(buffer):
            checksum = zlib.crc32(buffer[:count], checksum)
            on_bytes(count)
    return checksum


def _render(body: Any) -> str:
    """Returns the only valid text of a manifest, so that every change is detected."""
    checksum = zlib.crc32(json.dumps(body, sort_keys=True).encode())
    return json.dumps({"body": body, "crc32": checksum}, indent=1, sort_keys=True) + "\n"


def _parse(body: Any) -> Manifest:
    try:
        files = {file: (size, checksum) for file, (size, checksum) in body["files"].items()}
        manifest = Manifest(**{"best": 0} | body | {"files": files})  # older manifests lack "best"
        numbers = itertools.chain(*files.values(), (body[name] for name in body if name != "files"))
        if all(type(number) is int and number >= 0 for number in numbers):
            return manifest
    except (TypeError, ValueError, LookupError, AttributeError):
        pass
    raise ManifestError("was not written by this program")
