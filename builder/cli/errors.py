"""The one translator of errors into text and an exit status. Nothing else in pybuild prints an error.

What comes out is `error: …` or, for something in a Dockerfile, `Dockerfile:3:6: error[code]: …` with the line and a
caret, then `hint: …` with the next action. A traceback is shown with --debug only; that of a bug is stored in a file.
Exit statuses are listed in `MEANINGS`; a container's own exit code passes through `pybuild run` untouched.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING, TextIO

from builder.errors import BuildError, Canceled, LocatedError, StepFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    import click

    from builder.cli.app import App

FAILED = 1
USAGE = 2
BUG = 70
INTERRUPTED = 130
BROKEN_PIPE = 141
TERMINATED = 143

MEANINGS = {
    0: "done",
    FAILED: "what was asked for could not be done",
    USAGE: "the command line means nothing",
    BUG: "pybuild itself is wrong (EX_SOFTWARE of sysexits.h)",
    125: "a container could not be made",
    126: "the container's program cannot be executed",
    127: "the container's program does not exist",
    INTERRUPTED: "interrupted by Ctrl-C (128 + SIGINT)",
    BROKEN_PIPE: "the reader of the output went away (128 + SIGPIPE)",
    TERMINATED: "asked to end (128 + SIGTERM)",
}
"""What every exit status of pybuild means."""

_NO_SPACE = "free some space, `pybuild store gc` may help, or choose another place with --root"
_NOT_ALLOWED = "run as root, or choose a store that you may write to with --root"
_TOO_MANY = "raise the limit on open files (`ulimit -n`)"

SYSTEM_HINTS = {
    errno.EACCES: _NOT_ALLOWED,
    errno.EPERM: _NOT_ALLOWED,
    errno.EROFS: "choose a place that can be written to with --root",
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: _NO_SPACE,
    errno.EMFILE: _TOO_MANY,
    errno.ENFILE: _TOO_MANY,
    errno.ENOMEM: "free some memory, or lower --jobs",
    errno.EIO: "look into the kernel's log (`dmesg`): the disk may be failing",
    errno.ESTALE: "the file system went away; mount it again",
}
"""The next action after an error of the system. An errno that is not here is nobody's fault but ours: a bug."""


class Ended(BaseException):
    """SIGTERM or SIGHUP arrived: what is open is closed on the way out, then the process exits with 128 + `signum`."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


def exit_status(app: App, words: Sequence[str]) -> int:
    """Run the command that `words` name; report what goes wrong on stderr; return the exit status of the process."""
    import click  # noqa: PLC0415 - commands that are read without it do without it

    def invoke() -> object:
        try:
            with app.make_context("pybuild", list(words)) as context:
                return app.invoke(context)
        except click.exceptions.Exit as ended:
            return ended.exit_code

    return reported(invoke, debug="--debug" in words[: app.skip_own_options(words)])


def reported(act: Callable[[], object], *, debug: bool) -> int:
    """Do what the user asked for; report what goes wrong on stderr; return the exit status of the process."""
    _catch_termination()
    # UTF-8 whatever the locale says, as every tool around containers writes; file names that are none stay as they are.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")
    try:
        result = act()
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt, Ended) as error:  # noqa: BLE001 - this is the place where all of them end
        return report(error, sys.stderr, debug=debug)
    return result if isinstance(result, int) else 0


def report(error: BaseException, out: TextIO, *, debug: bool = False) -> int:
    """Say on `out` what `error` means for the user and return the exit status that goes with it."""
    if isinstance(error, BrokenPipeError) and _reader_is_gone():
        _discard_output()
        return BROKEN_PIPE
    import click  # noqa: PLC0415 - see `exit_status`

    told = _tell(error)
    if told is None:
        return _report_bug(error, out, debug=debug)
    text, status = told
    if debug and not isinstance(error, click.ClickException):
        _write_traceback(error, out)
    if text:
        _write(out, text + "\n")
    return status


def _tell(error: BaseException) -> tuple[str, int] | None:
    """Return the text and the exit status of `error`; None for a bug."""
    import click  # noqa: PLC0415 - see `exit_status`

    from grammar import GrammarError, LocatedGrammarError  # noqa: PLC0415 - likewise

    match error:
        case KeyboardInterrupt() | click.Abort():
            return "canceled", INTERRUPTED
        case Canceled():
            return _plain(error.message, error.hint), error.exit_code
        case Ended():
            return "", 128 + error.signum
        case click.ClickException():
            return _usage(error), error.exit_code
        case StepFailed():
            return _step(error), error.exit_code
        case LocatedError() | LocatedGrammarError():
            return error.render(), error.exit_code
        case BuildError() | GrammarError():
            return _plain(error.message, error.hint), error.exit_code
        case MemoryError():
            return _plain("out of memory", SYSTEM_HINTS[errno.ENOMEM]), FAILED
        case OSError() if error.errno in SYSTEM_HINTS:
            where = os.fsdecode(error.filename) + ": " if isinstance(error.filename, str | bytes) else ""
            return _plain(f"{where}{error.strerror}", SYSTEM_HINTS[error.errno]), FAILED
    return _tell_of_leaf(error)


def _tell_of_leaf(error: BaseException) -> tuple[str, int] | None:
    """As `_tell`, for the errors of packages that are only imported once something went wrong."""
    from layerstore import StoreError  # noqa: PLC0415
    from runner import RunnerError, SetupError  # noqa: PLC0415

    match error:
        case SetupError():
            return _plain(error.message, error.hint), error.exit_status
        case StoreError() | RunnerError():
            return _plain(error.message, error.hint), error.exit_code
    return None


def _plain(message: str, hint: str) -> str:
    return f"error: {message}" + (f"\nhint: {hint}" if hint else "")


def _step(error: StepFailed) -> str:
    """A failed RUN: where it is written, the last it said, and where all that it said is kept."""
    lines = [error.render()]
    if error.tail:
        lines += ["", "the last lines of its output:", *(f"  {line}" for line in error.tail)]
    if error.log and error.log not in error.hint:
        lines += ["", f"all of its output: {error.log}"]
    return "\n".join(lines)


def _usage(error: click.ClickException) -> str:
    """A command line that means nothing, in the words that all other errors use; help where there was none at all."""
    import click  # noqa: PLC0415 - see `exit_status`

    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return error.format_message()
    message = error.format_message().rstrip(".")
    message = message[:1].lower() + message[1:]
    context = getattr(error, "ctx", None)
    hint = getattr(error, "hint", "")
    match error:
        case click.NoSuchOption(option_name="--root" | "--debug") as early:
            hint = f"{early.option_name} goes before the command: pybuild {early.option_name} … COMMAND"
        case click.NoSuchOption(possibilities=[_, *_] as near):
            hint = "did you mean " + " or ".join(sorted(near)) + "?"
            message = f"no such option: {error.option_name}"
    if not hint and context is not None:
        hint = f"`{context.command_path} --help` lists what there is"
    return _plain(message, hint)


def _report_bug(error: BaseException, out: TextIO, *, debug: bool) -> int:
    """Say that pybuild is wrong, and keep the traceback where the user can find it."""
    import traceback  # noqa: PLC0415 - only a bug needs it

    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""
    text = f"BUG: {type(error).__name__}: {error}{place}\n"
    if debug:
        _write_traceback(error, out)
    elif stored := _store_traceback("".join(traceback.format_exception(error))):
        text += f"hint: this is a defect of pybuild; please report it with the traceback in {stored}\n"
    else:
        text += "hint: this is a defect of pybuild; run it again with --debug to see the traceback, and report it\n"
    _write(out, text)
    return BUG


def _write_traceback(error: BaseException, out: TextIO) -> None:
    import traceback  # noqa: PLC0415 - only with --debug

    _write(out, "".join(traceback.format_exception(error)))


def _store_traceback(text: str) -> str:
    """Write `text` to a new file of the temporary directory and return its path; nothing if that cannot be done."""
    import tempfile  # noqa: PLC0415 - only a bug needs it

    try:
        descriptor, path = tempfile.mkstemp(prefix="pybuild-bug-", suffix=".txt")
        with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
    except OSError:
        return ""
    return path


def _catch_termination() -> None:
    """Turn SIGTERM and SIGHUP into an exception, so that what is open is closed on the way out."""
    import signal  # noqa: PLC0415

    def end(signum: int, _frame: FrameType | None) -> None:
        raise Ended(signum)

    for signum in (signal.SIGTERM, signal.SIGHUP):
        # A process started with nohup ignores SIGHUP, and so do we then.
        if signal.getsignal(signum) is signal.SIG_DFL:
            signal.signal(signum, end)


def _write(out: TextIO, text: str) -> None:
    """Write to `out`; nobody is left to tell when that fails."""
    try:
        out.write(text)
        out.flush()
    except OSError:
        _discard_output()


def _reader_is_gone() -> bool:
    """Whether it is our own output that nobody reads any more, and not some socket."""
    import select  # noqa: PLC0415

    poll = select.poll()
    for descriptor in (1, 2):
        poll.register(descriptor, 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


def _discard_output() -> None:
    """Let what is still buffered go to nowhere, so that the interpreter's last flush does not complain."""
    null = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            continue
        os.dup2(null, descriptor)
    os.close(null)
