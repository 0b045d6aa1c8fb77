"""Keeping freed memory in the process, for training and decoding on CPUs.

XLA allocates the buffers of a step anew each time, and glibc gives blocks of this size back to the kernel when they are
freed, so that every step touches fresh pages: 38,000 page faults and a fifth of the processor time of the quickstart's
step. An accelerator has an allocator of its own.
"""

import ctypes
import importlib.metadata
import importlib.util
import os

# malloc.h: the parameters of mallopt. A trim threshold of -1 is none; any other, 2 GiB at most, is less than a large
# step leaves free.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> bool:
    """Tells glibc to keep what is freed, if this process computes on CPUs. Returns whether it does now.

    To be called before jax starts its threads: a thread that has an arena of its own keeps it, and what does not fit
    into such an arena is mapped and unmapped each time. Without glibc (macOS, musl) nothing happens.
    """
    if _accelerated():
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    # One arena, grown by 256 MiB at a time and never trimmed; no block is mapped (and unmapped) on its own.
    wanted = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_ARENA_MAX, 1), (_TOP_PAD, 256 * 2**20))
    return all([mallopt(parameter, value) for parameter, value in wanted])


def _accelerated() -> bool:
    """Whether jax may find an accelerator, told without starting it: its plugins are entry points, libtpu a package."""
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return False
    return bool(importlib.metadata.entry_points(group="jax_plugins")) or importlib.util.find_spec("libtpu") is not None
