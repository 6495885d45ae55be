"""How glibc's malloc keeps this process's memory."""

import contextlib
import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""What glibc's mallopt calls them."""

LARGE = 32 * 2**20
"""Bytes. No tensor that a chunk of the pocket needs for a moment is as large."""

_KEPT = 8 * LARGE
"""Bytes at the end of the heap that stay there for what comes next."""


def tune_malloc() -> None:
    """Memory that a chunk frees stays for the next one, and threads share their arenas; for this process, which is to
    be ours. To be called before there are many threads. Nothing happens where there is no glibc.

    Usually it goes back to the system, and is cleared when it is taken again: a twelfth of a chunk's time on two cores.
    And usually there may be eight arenas for each core, where what one thread frees no thread of another can use: the
    many threads of calls come to hold all of them.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_ARENA_MAX, max(2, os.cpu_count() or 1))
        mallopt(_M_MMAP_THRESHOLD, LARGE)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
