"""System calls that Python lacks, one wrapper each; failures are OSError(errno, text, path).

The only module that imports ctypes; it knows no policy.
"""
from __future__ import annotations

import ctypes
import os

PR_CAPBSET_DROP = 24
PR_CAPBSET_READ = 23

_libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    """Call prctl(2) and return its result."""
    result: int = _libc.prctl(option, ctypes.c_ulong(arg2), ctypes.c_ulong(arg3), ctypes.c_ulong(arg4), ctypes.c_ulong(arg5))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "prctl")
    return result
