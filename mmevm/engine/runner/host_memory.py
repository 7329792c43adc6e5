"""What the C library does with the memory that training on a CPU frees."""

import ctypes
import os

# Parameters of mallopt, of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Let the process keep what it frees, for the maps of the next training step.

    glibc gives large blocks, and the free end of its heap, back to the system. The next step then gets its memory page
    by page, each by a page fault and filled with zeros, which takes about a tenth of its time. Settings of glibc's
    allocator in the environment are respected.

    Returns:
        bool: Whether glibc has been told so; other C libraries are left alone, and so are other allocators.
    """
    if any(name.startswith('MALLOC_') or name == 'GLIBC_TUNABLES' for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no such function, or no such thing as the process's own symbols
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, -1))
