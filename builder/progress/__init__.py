"""Consumers of a build's events: what a person, a log file or a program gets to see of it.

`create` picks one by name; each lives in a file of its own and is imported only when it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from builder.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from builder.events import Progress

__all__ = ["MODES", "create"]

MODES = ("auto", "none", "plain", "quiet", "rawjson", "tty")
"""The values of --progress and BUILDKIT_PROGRESS, as in `docker buildx build`.

`quiet` and `none` show no progress; after `quiet` the command prints the image's ID, after `none` nothing.
"""


def create(
    mode: str,
    out: TextIO,
    *,
    terminal: bool,
    color: bool | None = None,
    colors: str = "",
    log_lines: int = 6,
    clock: Callable[[], float],
    size: Callable[[], tuple[int, int]],
) -> Progress:
    """Return the consumer called `mode`, writing to `out` (stderr; quiet writes nothing).

    `terminal` says whether `out` is one: `auto` is `tty` there and `plain` elsewhere. `color` and `colors` are as
    in `Settings`; `log_lines` is the height of a step's live log; `clock` gives seconds since the epoch and `size` the
    columns and rows of the terminal. Raises UsageError for a mode that does not exist and for `tty` without a terminal.
    """
    if mode in ("", "auto"):
        mode = "tty" if terminal else "plain"
    match mode:
        case "plain":
            from builder.progress.plain import Plain  # noqa: PLC0415

            return Plain(out, clock=clock)
        case "tty":
            if not terminal:
                raise UsageError("--progress tty needs a terminal on stderr", hint="use --progress plain")
            from builder.progress.tty import Terminal  # noqa: PLC0415

            return Terminal(out, color=color is not False, colors=colors, log_lines=log_lines, clock=clock, size=size)
        case "quiet" | "none":
            from builder.progress.quiet import Quiet  # noqa: PLC0415

            return Quiet()
        case "rawjson":
            from builder.progress.rawjson import RawJson  # noqa: PLC0415

            return RawJson(out)
    raise UsageError(f"there is no progress called {mode!r}", hint=f"choose one of {', '.join(MODES)}")
