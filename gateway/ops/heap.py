"""How the C library keeps memory, so that the process holds little more than what is in use."""

import ctypes
from contextlib import suppress

_M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
LARGE_BYTES = 128 * 1024  # where glibc begins


def keep_large_pieces_apart() -> None:
    """Take large pieces of memory, such as bodies, from the system, and give them back as soon as they are freed.

    By default glibc takes them from its heap once one of that size was freed, and they leave holes between the events
    that are kept.
    """
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
