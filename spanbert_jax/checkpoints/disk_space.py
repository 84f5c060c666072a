"""Checks before a save that the disk can take it."""
import math
import pathlib
import shutil

from spanbert_jax.checkpoints.saving import short_reason
from spanbert_jax.common.formatting import format_bytes

# Space for the files that Orbax writes in addition to the arrays, and for the file system.
_SPARE_SHARE, _SPARE_BYTES = 0.02, 1 << 20


def find_obstacle(folder: pathlib.Path, size: int) -> str | None:
    """Returns why `size` bytes of arrays cannot be stored in an existing folder, or None."""
    try:
        probe = folder / "writable.tmp"
        probe.write_bytes(b"written")
        probe.unlink()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return short_reason(error)
    needed = math.ceil(size * (1 + _SPARE_SHARE)) + _SPARE_BYTES
    return f"{format_bytes(needed)} are needed and {format_bytes(free)} are free" if free < needed else None
