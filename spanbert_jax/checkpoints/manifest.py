"""The manifest of a step: size and checksum of each file, taken when the step was saved, and how steps are kept."""
import dataclasses
import pathlib
import time
from collections.abc import Callable

from spanbert_jax.common import manifest as manifests
from spanbert_jax.common.manifest import Files, ManifestError, difference, file_sizes, measure


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Content of a manifest."""
    step: int
    saved_at: int  # time of the save, in seconds since 1970
    keep: int  # number of newest steps that the run keeps
    keep_every: int  # interval of the steps that the run keeps for good
    best: int  # the step with the best score so far; 0 if there is none
    files: Files  # those in the folder of the step


def write_manifest(path: pathlib.Path, step_folder: pathlib.Path, step: int, keep: int, keep_every: int,
                   best: int = 0) -> None:
    """Flushes every file of a step to the disk, reads it, and writes the manifest. Raises OSError if that fails."""
    files = measure(step_folder, file_sizes(step_folder))
    fields = dict(step=step, saved_at=int(time.time()), keep=keep, keep_every=keep_every, best=best)
    manifests.write_manifest(path, fields, files)


def read_manifest(path: pathlib.Path, step: int) -> Manifest:
    """Reads the manifest of a step. Raises ManifestError if it is missing or differs from what was written."""
    fields, files = manifests.read_manifest(path)
    try:
        manifest = Manifest(**{"best": 0} | fields, files=files)  # older manifests lack "best"
    except TypeError:
        raise ManifestError("was not written by this program") from None
    if not all(type(number) is int and number >= 0 for number in fields.values()):
        raise ManifestError("was not written by this program")
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
        sizes = file_sizes(step_folder)  # a link leads out of the folder, and is no file of a step
    except ManifestError as error:
        return f"{manifest.name}: {error}"
    except OSError as error:
        return f"{step_folder.name}: cannot be read: {error.strerror}"
    return difference(step_folder, files, sizes, full=full, on_bytes=on_bytes)
