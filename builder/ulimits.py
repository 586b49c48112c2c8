"""`--ulimit` values: `nofile=1024` or `nofile=1024:2048` (docker's go-units ParseUlimit)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.errors import UsageError

if TYPE_CHECKING:
    from runner.spec import Rlimit

NAMES = (
    "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
    "rttime", "sigpending", "stack",
)  # fmt: skip


def parse_ulimit(text: str) -> Rlimit:
    """Return the limit that `text` sets; -1 is unlimited. UsageError if it is none."""
    from runner.spec import Rlimit  # noqa: PLC0415 - only steps and containers with limits

    name, equals, value = text.partition("=")
    soft, colon, hard = value.partition(":")
    try:
        limits = int(soft), int(hard if colon else soft)
    except ValueError:
        limits = (-2, -2)
    if not equals or name not in NAMES or min(limits) < -1:
        raise UsageError(f"invalid ulimit {text!r}", hint="write NAME=SOFT[:HARD], as in nofile=1024:2048")
    if limits[1] != -1 and (limits[0] == -1 or limits[0] > limits[1]):
        raise UsageError(f"ulimit {text!r}: the soft limit exceeds the hard limit", hint="write SOFT:HARD")
    return Rlimit(type="RLIMIT_" + name.upper(), soft=limits[0], hard=limits[1])
