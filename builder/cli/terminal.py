"""The user's terminal while a container has it: raw, of a size, and given back as it was."""

from __future__ import annotations

import contextlib
import os
from types import TracebackType
from typing import Any, Self


class RawTerminal:
    """A context manager: inside, every key of the terminal `fd` goes through as it is, Ctrl-C and Ctrl-Z included."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._saved: list[Any] = []

    def __enter__(self) -> Self:
        import termios  # noqa: PLC0415 - most runs have no terminal

        self._saved = termios.tcgetattr(self._fd)
        self.resume()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import termios  # noqa: PLC0415

        # A terminal that went away (SIGHUP) has nothing to restore.
        with contextlib.suppress(termios.error):
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._saved)

    def resume(self) -> None:
        """Make it raw again: after a stop, the shell has restored it. What was typed already is kept."""
        import termios  # noqa: PLC0415
        import tty  # noqa: PLC0415

        with contextlib.suppress(termios.error):
            tty.setraw(self._fd, termios.TCSADRAIN)


def window_size() -> tuple[int, int] | None:
    """Return (rows, columns) of the terminal on stdout, stdin or stderr; None if there is none or it does not say."""
    for fd in (1, 0, 2):
        try:
            size = os.get_terminal_size(fd)
        except OSError:
            continue
        if size.lines and size.columns:
            return size.lines, size.columns
    return None
