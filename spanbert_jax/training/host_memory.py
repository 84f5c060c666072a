"""Settings of the host's memory allocator for training on CPUs."""
import ctypes

# Parameters of glibc's mallopt, from malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_NEVER = -1


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
