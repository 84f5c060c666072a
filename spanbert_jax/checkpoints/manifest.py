"""A step's manifest: the size and the checksum of each of its files, taken when it was saved.

It finds what changed on the disk afterwards: Orbax restores a flipped bit without a word. It is no defence against a
person who changes both. Nothing in it is trusted: it only says what the files of the step's own folder must be.
"""
from __future__ import annotations

import concurrent.futures
import dataclasses
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
_FIELDS = {"step": int, "saved_at": int, "keep": int, "keep_every": int, "best": int, "files": dict}


class ManifestError(Exception):
    """Why a manifest cannot be believed, in a few words."""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What was saved.

    Attributes:
      step: of the training.
      saved_at: when, in seconds since 1970.
      keep: the number of newest steps that the run keeps.
      keep_every: and the steps it keeps for good.
      best: and the step that scored best so far; 0 for none.
      files: the size in bytes and the CRC-32 of each file, by its path in the step's folder.
    """
    step: int
    saved_at: int
    keep: int
    keep_every: int
    best: int
    files: dict[str, tuple[int, int]]


def write_manifest(path: pathlib.Path, step_folder: pathlib.Path, step: int, keep: int, keep_every: int,
                   best: int = 0) -> None:
    """Reads every file of a step, brings it to the disk, and writes the manifest so that it is never seen half-written.

    Raises:
      OSError: what the disk says.
    """
    sizes = file_sizes(step_folder)
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        checksums = list(pool.map(lambda file: _checksum(step_folder / file, to_disk=True), sizes))
    for parent in {step_folder / file for file in sizes for file in pathlib.PurePath(file).parents}:
        sync_directory(parent)
    files = {file: (size, checksum) for (file, size), checksum in zip(sizes.items(), checksums)}
    manifest = Manifest(step, int(time.time()), keep, keep_every, best, files)
    write_text(path, _render(dataclasses.asdict(manifest)), sync=True)


def read_manifest(path: pathlib.Path, step: int) -> Manifest:
    """The manifest of a step.

    Raises:
      ManifestError: when it is missing, or anything in it is not as it was written.
    """
    try:
        text = path.read_bytes().decode()
        body = json.loads(text)["body"]
        unchanged = _render(body) == text
    except FileNotFoundError:
        raise ManifestError("missing") from None
    except OSError as error:
        raise ManifestError(f"cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        unchanged = False
    if not unchanged:
        raise ManifestError("contents differ")
    body = {"best": 0} | body if isinstance(body, dict) else body  # older ones do without
    _check_types(body)
    if body["step"] != step:
        raise ManifestError(f"is of step {body['step']}")
    return Manifest(**body | {"files": {file: tuple(entry) for file, entry in body["files"].items()}})


def verify(step_folder: pathlib.Path, manifest: pathlib.Path, step: int, *, full: bool = True,
           on_bytes: Callable[[int], None] | None = None) -> str | None:
    """What is wrong with the files of a step: the first that differs and how, or None. Other files are not looked at.

    Args:
      step_folder: holds the step.
      manifest: its path.
      step: that it should be of.
      full: read every byte; else sizes alone are compared.
      on_bytes: is told of every so many bytes read, from several threads.
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
    """The sizes in bytes of the regular files under a folder, by path, in order. Links are left out.

    Raises:
      OSError: when it cannot be listed.
    """
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


def _checksum(path: pathlib.Path, to_disk: bool = False, on_bytes: Callable[[int], None] = lambda count: None) -> int:
    """CRC-32 of a file, which lets other threads run meanwhile."""
    checksum, buffer = 0, memoryview(bytearray(_CHUNK_BYTES))
    with open(path, "rb", buffering=0) as file:
        if to_disk:
            os.fsync(file.fileno())
        while count := file.readinto(buffer):
            checksum = zlib.crc32(buffer[:count], checksum)
            on_bytes(count)
    return checksum


def _render(body: Any) -> str:
    """The one text of a manifest, so that any other one is seen to be changed."""
    checksum = zlib.crc32(json.dumps(body, sort_keys=True).encode())
    return json.dumps({"body": body, "crc32": checksum}, indent=1, sort_keys=True) + "\n"


def _check_types(body: Any) -> None:
    def whole(number: Any) -> bool:
        return type(number) is int and number >= 0

    sound = isinstance(body, dict) and body.keys() == _FIELDS.keys() and all(
        whole(body[name]) if kind is int else isinstance(body[name], kind) for name, kind in _FIELDS.items())
    if not sound or not all(
            isinstance(entry, list) and len(entry) == 2 and all(map(whole, entry)) for entry in body["files"].values()):
        raise ManifestError("is not one that this program writes")
