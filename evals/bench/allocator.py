"""Keeps freed memory in the process, so that what is timed is the model and not the kernel that hands out pages.

glibc gives large blocks back as soon as they are freed, and every page of the next one is fetched anew. That is several
per cent of a prefill on a CPU, and how many depends on where a few blocks happen to lie, so it differs between cases
that do the same work.
"""

import ctypes

#: glibc's tunables for a process that is yet to begin: no blocks of their own, nothing given back.
ENVIRONMENT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h


def keep_memory() -> bool:
    """Set the same in this process. False where its C library is not glibc, and nothing was set."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(M_TRIM_THRESHOLD, -1) and mallopt(M_MMAP_MAX, 0))
