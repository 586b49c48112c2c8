"""`pybuild run -t` on a real pseudo-terminal: its size, its keys, its modes."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runcli import Cli, end, host_state, read_until, wait_for

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    one = Cli(tmp_path_factory.mktemp("store"))
    one.add_image("box")
    return one


class Terminal:
    """A pseudo-terminal with `pybuild run` as its foreground program, as a shell would start it."""

    def __init__(self, cli: Cli, *words: str, rows: int = 31, columns: int = 97) -> None:
        self.master, self.slave = pty.openpty()
        termios.tcsetwinsize(self.slave, (rows, columns))
        self.before = self.modes()
        self.unread = b""

        def take_terminal() -> None:
            os.setsid()
            import fcntl

            fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0)

        options: dict[str, Any] = {"stdin": self.slave, "stdout": self.slave, "stderr": self.slave}
        self.process: subprocess.Popen[bytes] = cli.start(
            "run", "--rm", "--network", "none", *words, preexec_fn=take_terminal, **options
        )

    def modes(self) -> list[Any]:
        return termios.tcgetattr(self.slave)

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def read_until(self, wanted: bytes) -> bytes:
        """What comes up to `wanted`; what came with it is kept for the next time."""
        if wanted not in self.unread:
            self.unread += read_until(self.master, wanted, before=self.unread)
        data, found, self.unread = self.unread.partition(wanted)
        return data + found

    def close(self) -> None:
        if self.process.poll() is None:
            end(self.process, signal.SIGKILL)
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminal(cli: Cli) -> Iterator[Any]:
    before = host_state(cli.root)
    made: list[Terminal] = []

    def start(*words: str, **size: int) -> Terminal:
        made.append(Terminal(cli, *words, **size))
        return made[-1]

    yield start
    for one in made:
        one.close()
    cli("ps")
    deadline = time.monotonic() + 10
    while host_state(cli.root) != before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert before == host_state(cli.root)


def test_size(terminal: Any) -> None:
    """The container's terminal has the size of the user's from the first moment, and follows it."""
    script = "stty size; trap 'stty size; exit 6' WINCH; echo up; while :; do sleep 0.05; done"
    one = terminal("-it", "box", "sh", "-c", script)
    one.read_until(b"31 97\r\n")
    one.read_until(b"up\r\n")

    termios.tcsetwinsize(one.slave, (40, 120))

    one.read_until(b"40 120\r\n")
    assert 6 == end(one.process)


def test_terminal_is_real(terminal: Any) -> None:
    """All three streams are a terminal that the program's session controls, and TERM is set."""
    script = "test -t 0 && test -t 1 && test -t 2 && echo $TERM; tty; echo x > /dev/tty"
    one = terminal("-it", "box", "sh", "-c", script)

    seen = one.read_until(b"x\r\n")

    assert b"xterm\r\n" in seen
    assert b"/dev/" in seen
    assert 0 == end(one.process)


def test_keys_belong_to_the_container(terminal: Any) -> None:
    """Ctrl-C is the container's: the shell in it survives, what runs in it does not, and we do not notice."""
    one = terminal("-it", "box", "sh")
    one.type(b"sleep 600; echo unseen\n")
    one.read_until(b"unseen\r\n")
    time.sleep(0.3)
    one.type(b"\x03")
    # The interrupt character throws away what was typed and not read yet, so only the prompt is the time to go on.
    one.read_until(b"# ")
    one.type(b"echo alive $((6*7))\nexit 11\n")

    one.read_until(b"alive 42")
    assert 11 == end(one.process)


def test_suspend_is_the_containers(terminal: Any) -> None:
    """Ctrl-Z stops a job of the shell in the container, not pybuild."""
    one = terminal("-it", "box", "sh")
    one.type(b"sleep 600\n")
    time.sleep(0.5)
    one.type(b"\x1a")
    one.read_until(b"# ")
    # The shell warns once of what is stopped, then goes.
    one.type(b"jobs; exit 12\n")
    one.read_until(b"Stopped")
    one.read_until(b"# ")
    one.type(b"exit 12\n")

    assert 12 == end(one.process)


def test_modes_come_back(terminal: Any) -> None:
    """The user's terminal is raw while the container has it and as before afterwards, however it ended."""
    one = terminal("-it", "box", "sh", "-c", "echo up; read line; exit 3")
    one.read_until(b"up")

    local = one.modes()[3]
    assert not local & (termios.ICANON | termios.ECHO | termios.ISIG)

    one.type(b"\n")
    assert 3 == end(one.process)
    assert one.before == one.modes()

    other = terminal("-it", "box", "no-such-program")
    assert 127 == end(other.process)
    assert other.before == other.modes()


def test_without_input_the_terminal_is_left_alone(terminal: Any) -> None:
    """With -t alone, the user's terminal keeps its modes, and Ctrl-C reaches the program as a signal."""
    script = "trap 'echo got it; exit 5' INT; echo up; while :; do sleep 0.05; done"
    one = terminal("-t", "box", "sh", "-c", script)
    one.read_until(b"up")
    assert one.before == one.modes()

    one.type(b"\x03")

    one.read_until(b"got it")
    assert 5 == end(one.process)


def test_hangup(terminal: Any, cli: Cli) -> None:
    """When the terminal goes away, the container gets SIGHUP and nothing stays."""
    script = "trap 'exit 4' HUP; echo up; while :; do sleep 0.05; done"
    one = terminal("-it", "--name", "hung", "box", "sh", "-c", script)
    one.read_until(b"up")
    os.close(one.slave)
    os.close(one.master)

    assert 4 == end(one.process)
    one.master, one.slave = pty.openpty()


def test_input_that_is_no_terminal(cli: Cli) -> None:
    """-it without a terminal is refused with a hint; -t alone works."""
    refused = cli.run("-it", "box", "true")
    works = cli.run("-t", "box", "sh", "-c", "test -t 1 && echo yes")

    assert 125 == refused.status
    assert "not a terminal" in refused.err
    assert "yes\r\n" == works.out


def test_detached_with_terminal(cli: Cli) -> None:
    """-dt keeps a terminal that nobody looks at; its output is in the log."""
    cli("run", "-dt", "--network", "none", "--name", "screen", "box", "sh", "-c", "test -t 1 && echo yes")

    wait_for(lambda: [row["State"] for row in cli.ps()] == ["exited"])
    assert "yes\r\n" == cli("logs", "screen").out
    cli("rm", "screen")


def test_output_of_a_terminal_is_whole(terminal: Any, tmp_path: Path) -> None:
    """What was written just before the end arrives, however much it is."""
    one = terminal("-it", "box", "sh", "-c", "seq 1 20000; echo the end")

    seen = one.read_until(b"the end\r\n")

    assert [b"%d" % number for number in range(1, 20001)] == seen.split(b"\r\n")[:20000]
    assert 0 == end(one.process)
