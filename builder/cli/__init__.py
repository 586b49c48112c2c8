"""The command line: `pybuild` starts here. Nothing heavy is imported before it is known what the user wants."""

from __future__ import annotations

import gc
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

__all__ = ["main", "script"]

_OBJECTS = 1_000_000
"""How many objects are made before cycles are looked for: modules make tens of thousands, and each file of a context a
few more, of which none is garbage."""


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command that `args` (the process's own without them) name and exit with its status."""
    words = list(sys.argv[1:] if args is None else args)
    if sys.stdin is None or sys.stdout is None or sys.stderr is None:
        _open_closed_streams()
    if words == ["--version"]:
        # The one command that scripts call to see whether pybuild is there: it costs an interpreter and nothing else.
        from builder.version import VERSION  # noqa: PLC0415

        sys.stdout.write(f"pybuild {VERSION}\n")
        sys.exit(0)
    gc.set_threshold(_OBJECTS)
    with _QuietInterrupt():
        from builder.cli.words import read_call  # noqa: PLC0415

        call = read_call(words)
        if call is not None and call.command == "run":
            from builder.cli.running import status_of  # noqa: PLC0415
        elif call is not None:
            from builder.cli.building import status_of  # noqa: PLC0415
    if call is not None:
        _leave(status_of(call))
    with _QuietInterrupt():
        from builder.cli.app import app  # noqa: PLC0415
        from builder.cli.errors import exit_status  # noqa: PLC0415
    _leave(exit_status(app, words))


def _leave(status: int) -> NoReturn:
    """Exit without looking for cycles in all that was loaded: 5 ms, and the kernel frees everything anyway."""
    gc.freeze()
    sys.exit(status)


def script() -> NoReturn:
    """Be the console script: what `main` does, without taking the interpreter apart in the end, which takes 3 ms more.

    Where threads still run, something is to be called at exit, or output cannot be written, it ends as programs do.
    """
    try:
        main()
    except SystemExit as end:
        import atexit  # noqa: PLC0415
        import os  # noqa: PLC0415

        threading = sys.modules.get("threading")
        alone = threading is None or threading.active_count() == 1
        if isinstance(end.code, int) and alone and not atexit._ncallbacks():  # noqa: SLF001 - nothing public tells
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            except OSError:
                raise end from None
            os._exit(end.code)
        raise


class _QuietInterrupt:
    """Let Ctrl-C end the process at once while there is nothing to clean up, and nobody yet to report it nicely."""

    def __enter__(self) -> None:
        import signal  # noqa: PLC0415 - --version does without it

        self._before = signal.getsignal(signal.SIGINT)
        if self._before is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)

    def __exit__(self, *_: object) -> None:
        import signal  # noqa: PLC0415

        if self._before is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._before)


def _open_closed_streams() -> None:
    """Open /dev/null where the caller closed a standard stream: else the next file opened would be taken for it."""
    import os  # noqa: PLC0415 - hardly ever needed

    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)
            setattr(sys, name, open(descriptor, mode, closefd=False))  # noqa: SIM115 - for the life of the process
