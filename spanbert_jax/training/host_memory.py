"""How the host's allocator treats the large buffers that a step on CPUs takes and gives back."""
from __future__ import annotations

import ctypes

# Parameters of glibc's mallopt, from malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_NEVER = -1


def keep_freed_memory() -> None:
    """Tells glibc to keep what is freed for the next step instead of giving it back to the system.

    On CPUs XLA takes a step's temporary buffers anew each time. Given back, every page of them is mapped and zeroed
    again, which took a quarter of a small network's step. Elsewhere than on glibc this does nothing. Call it before the
    first array: threads that have allocated already keep their ways.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    # One heap, no mappings outside it, never cut back.
    for parameter, value in ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER)):
        mallopt(parameter, value)
