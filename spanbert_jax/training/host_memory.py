"""The host's memory: how much is free, and settings of its allocator for training on CPUs."""
import contextlib
import ctypes
import os
import pathlib
import re

# Parameters of glibc's mallopt, from malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_NEVER = -1
# Files with limit and use of a container's memory, and with the part of it that caches files and can be freed, of both
# versions of control groups.
_CONTAINERS = (("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat"),
               ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes",
                "/sys/fs/cgroup/memory/memory.stat"))


def keep_freed_memory() -> None:
    """Makes glibc keep freed memory for the next step instead of returning it to the system.

    On CPUs XLA allocates the temporary buffers of each step. Returned memory is mapped and zeroed again page by page,
    which took a quarter of the step of a small model. Does nothing without glibc. Call it before creating the first
    array: threads that have allocated already are not affected.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    # One heap, no mappings outside it, never cut back.
    for parameter, value in ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER)):
        mallopt(parameter, value)


def free_host_memory() -> float:
    """Free bytes of the host, or of the container in which the process runs; all of its memory if Linux's files, which
    tell what is free, are missing."""
    match = re.search(r"^MemAvailable:\s+(\d+) kB", _read("/proc/meminfo"), re.M)
    if not match:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    free = [1024 * float(match[1])]
    for limit, use, details in _CONTAINERS:
        if (allowed := _read(limit).strip()).isdigit():  # "max" for no limit
            files = re.findall(r"^(?:total_)?inactive_file (\d+)", _read(details), re.M)
            free.append(float(allowed) - float(_read(use)) + max(map(float, files), default=0.0))
    return min(free)


def _read(path: str) -> str:
    with contextlib.suppress(OSError):
        return pathlib.Path(path).read_text(encoding="ascii")
    return ""
