"""Errors become text and an exit status in one place, and nothing gets past it."""

from __future__ import annotations

import errno
import importlib
import inspect
import io
import pkgutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

import builder
import grammar
import layerstore
import runner
from builder.cli.errors import MEANINGS, SYSTEM_HINTS, Ended, report
from builder.errors import BuildError, Canceled, LocatedError, StepFailed, UsageError
from grammar import Diagnostic, GrammarError, ParseError, Position, Span
from layerstore import StoreError
from runner import RunnerError, SetupError
from tests.cli.conftest import Pybuild

ROOTS = (BuildError, GrammarError, StoreError, RunnerError)
SOURCE = "FROM scratch\nRUN fales\n"
DIAGNOSTIC = Diagnostic(
    code="run", message="it failed", span=Span(Position(2, 5), Position(2, 10)), hint="did you mean false?"
)


def told(error: BaseException, *, debug: bool = False) -> tuple[int, str]:
    """The exit status and the text of an error."""
    out = io.StringIO()
    return report(error, out, debug=debug), out.getvalue()


def error_classes() -> list[type[Exception]]:
    """Every error class that the packages define."""
    for package in (builder, grammar, layerstore, runner):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if not module.name.endswith(("__main__", "runner.launcher", "grammar.generate", "runner.generate")):
                importlib.import_module(module.name)
    found: list[type[Exception]] = []
    todo: list[type[Exception]] = list(ROOTS)
    while todo:
        one = todo.pop()
        found.append(one)
        todo += one.__subclasses__()
    return found


def test_every_exit_code_has_one_meaning() -> None:
    """Exit codes are those of the table, and two classes share one only where one is the other's base or it is 1."""
    claims: dict[int, list[type[Exception]]] = {}
    for one in error_classes():
        code = vars(one).get("exit_code")
        if isinstance(code, int):
            claims.setdefault(code, []).append(one)
    disputed = {code: classes for code, classes in claims.items() if code != 1 and len(classes) > 1}

    assert {} == disputed
    assert set() == set(claims) - set(MEANINGS)


def test_every_error_has_message_and_hint() -> None:
    """The translator needs no case of its own for a class: the fields of the roots are always there."""
    for root in ROOTS:
        error = root("what", hint="next")

        assert ("what", "next") == (error.message, error.hint)
        assert (root.exit_code, "error: what\nhint: next\n") == told(error)


def test_no_error_of_ours_is_taken_for_a_bug() -> None:
    """Whatever its class, an error of the four packages is told as one."""
    for one in error_classes():
        assert issubclass(one, ROOTS)
        assert not inspect.isabstract(one)


def test_located() -> None:
    """An error in a Dockerfile shows the line, a caret and the hint."""
    expected = "Dockerfile:2:5: error[run]: it failed\n 2 | RUN fales\n   |     ^^^^^\nhint: did you mean false?\n"

    assert (1, expected) == told(LocatedError((DIAGNOSTIC,), source=SOURCE))
    assert (1, expected) == told(ParseError((DIAGNOSTIC,), source=SOURCE))


def test_a_failed_step() -> None:
    """A failed RUN shows its last lines and where all of them are."""
    error = StepFailed(DIAGNOSTIC, tail=("one", "two"), log="/store/logs/1", status=3, source=SOURCE)
    status, text = told(error)

    assert 1 == status
    assert text.endswith("\nthe last lines of its output:\n  one\n  two\n\nall of its output: /store/logs/1\n")


def test_containers_pass_docker_s_codes() -> None:
    """A program that does not exist is 127, one that cannot be executed is 126, anything else 125."""
    assert 127 == told(SetupError("exec", errno.ENOENT, "/bin/nothing"))[0]
    assert 126 == told(SetupError("exec", errno.EACCES, "/etc/passwd"))[0]
    assert 125 == told(SetupError("mounts", errno.EPERM, "/proc"))[0]


@pytest.mark.parametrize("number", sorted(SYSTEM_HINTS))
def test_errors_of_the_system(number: int) -> None:
    """What the machine refuses is said with the path and the next action."""
    status, text = told(OSError(number, "refused", "/store/x"))

    assert (1, f"error: /store/x: refused\nhint: {SYSTEM_HINTS[number]}\n") == (status, text)


def test_paths_that_are_no_text() -> None:
    """A path is bytes: what is no UTF-8 is shown as well as it can be."""
    assert "error: /\udcff: refused" in told(OSError(errno.ENOSPC, "refused", b"/\xff"))[1]


def test_interruption() -> None:
    """Ctrl-C is 130 and said in a word, however it arrives; SIGTERM is silent."""
    assert (130, "canceled\n") == told(KeyboardInterrupt())
    assert (130, "canceled\n") == told(click.Abort())
    assert (130, "error: the build was canceled\n") == told(Canceled("the build was canceled"))
    assert (143, "") == told(Ended(signal.SIGTERM))
    assert (129, "") == told(Ended(signal.SIGHUP))


def test_usage() -> None:
    """Options that contradict each other are 2, from click and from the builder alike."""
    assert (2, "error: a and b\nhint: drop one\n") == told(UsageError("a and b", hint="drop one"))
    assert (2, "error: missing it\n") == told(click.UsageError("Missing it."))


def test_bugs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug is short on the terminal; its traceback is in a file, or shown with --debug."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    try:
        dict[str, str]()["nothing"]
    except KeyError as error:
        status, text = told(error)
        _, with_debug = told(error, debug=True)
    [stored] = tmp_path.iterdir()

    assert 70 == status
    assert text.startswith("BUG: KeyError: 'nothing' at test_errors.py:")
    assert str(stored) in text
    assert 2 == text.count("\n")
    assert "Traceback" in stored.read_text()
    assert "Traceback" in with_debug


def test_an_errno_that_nobody_expects_is_a_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EBADF is never the user's fault."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    assert 70 == told(OSError(errno.EBADF, "bad file descriptor"))[0]


def test_unknown_options(pybuild: Pybuild) -> None:
    """A misspelled option names the one that was meant; one that is not near any names the help."""
    near = pybuild("images", "--no-trunk", status=2)

    assert "error: no such option: --no-trunk\nhint: did you mean --no-trunc?\n" == near.err
    assert "hint: `pybuild images --help` lists what there is\n" in pybuild("images", "--zzz", status=2).err


def test_a_reader_that_goes_away(pybuild: Pybuild) -> None:
    """`pybuild … | head -1` ends quietly."""
    script = f"{sys.executable} -m builder --help | true; echo ${{PIPESTATUS[0]}}"
    for _ in range(5):
        done = subprocess.run(
            ["bash", "-c", script], env=pybuild.base(), cwd=pybuild.cwd, capture_output=True, text=True, check=True
        )

        assert "" == done.stderr
        assert done.stdout.strip() in ("0", "141")


def test_a_store_that_cannot_be_made(pybuild: Pybuild) -> None:
    """A file where the store's directory should be is an error, not a traceback."""
    pybuild.root.write_text("in the way")
    done = pybuild("images", status=1)

    assert done.err.startswith("error: ")
    assert "Traceback" not in done.err


def wait_until_it_reads(pid: int) -> None:
    """Return once the process sleeps in a read of a pipe, as the kernel shows it."""
    deadline = time.monotonic() + 20
    while "pipe_read" not in Path(f"/proc/{pid}/wchan").read_text():
        assert time.monotonic() < deadline, "it never came to read its input"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("signum", "status", "text"),
    [(signal.SIGINT, 130, "canceled\n"), (signal.SIGTERM, 143, ""), (signal.SIGHUP, 129, "")],
)
def test_signals_end_a_command_in_order(pybuild: Pybuild, signum: signal.Signals, status: int, text: str) -> None:
    """A command that waits for its input ends at once, with the shell's status and without a traceback."""
    with subprocess.Popen(
        [sys.executable, "-m", "builder", "parse", "-"],
        env=pybuild.base(),
        cwd=pybuild.cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_until_it_reads(process.pid)
        process.send_signal(signum)
        _, err = process.communicate(timeout=20)

    assert (status, text) == (process.returncode, err)


def test_no_words_at_all(pybuild: Pybuild) -> None:
    """`pybuild` alone shows what there is, and says nothing of an error."""
    done = pybuild(status=2)

    assert done.err.startswith("Usage: pybuild")
    assert "error" not in done.err
