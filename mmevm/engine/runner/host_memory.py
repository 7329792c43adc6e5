"""What the C library does with the memory that training on a CPU frees."""

import ctypes

# Of glibc's malloc.h: parameters of mallopt, and the largest block that it takes from the heap when asked to.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST = 32 << 20


def keep_freed_memory() -> bool:
    """Let the process keep what it frees, for the maps of the next step.

    glibc returns the free end of its heap to the system, and most of a step's maps are freed in its backward pass. The
    next step would get the same pages back one by one, by a page fault and filled with zeros: about a tenth of a
    training step. ``MALLOC_TRIM_THRESHOLD_`` and its like have no effect afterwards.

    Returns:
        bool: Whether the C library can be told so; only glibc can.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or no such thing as the process's own symbols
        return False
    # Setting one of them fixes the other, which would otherwise grow from 128 KiB as larger blocks are freed.
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST) and mallopt(_M_TRIM_THRESHOLD, -1))
