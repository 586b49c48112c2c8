"""Progress on a terminal: what stands on the screen after all the cursor movement, at any size."""

from __future__ import annotations

import io
import re
import subprocess
import sys

import pytest
from syrupy.assertion import SnapshotAssertion

from builder.errors import UsageError
from builder.events import Completed, Event, Log, Planned, Started, Transfer
from builder.progress.colors import Colors
from builder.progress.screen import clip, width
from builder.progress.tty import Terminal
from tests.builder.progress import START, Clock, failing_build, feed, vertex

_MOVE = re.compile(r"\x1b\[(\?)?(\d*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


class Screen(io.StringIO):
    """A terminal of `columns` that understands what progress writes: text, wrapping, up, clear, colours."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.columns = columns
        self.lines = [""]
        self.row = 0
        self.column = 0
        self.cursor_hidden = False

    def write(self, text: str) -> int:
        """Do what the bytes say."""
        for match in _MOVE.finditer(text):
            private, number, letter, control, plain = match.groups()
            if plain:
                for character in plain:
                    self._put(character)
            elif control == "\r":
                self.column = 0
            elif control == "\n":
                self.column = 0
                self.row += 1
                if self.row == len(self.lines):
                    self.lines.append("")
            elif private and number == "25":
                self.cursor_hidden = letter == "l"
            elif letter == "A":
                self.row = max(0, self.row - int(number))
            elif letter == "K":
                self.lines[self.row] = self.lines[self.row][: self.column]
            elif letter == "J":
                self.lines[self.row] = self.lines[self.row][: self.column]
                del self.lines[self.row + 1 :]
            else:
                assert letter == "m" or private, match[0]
        return len(text)

    def _put(self, character: str) -> None:
        if self.column == self.columns:
            self.column = 0
            self.row += 1
            if self.row == len(self.lines):
                self.lines.append("")
        line = self.lines[self.row].ljust(self.column)
        self.lines[self.row] = line[: self.column] + character + line[self.column + 1 :]
        self.column += 1

    def shown(self) -> str:
        """What a person sees."""
        return "\n".join(line.rstrip() for line in self.lines)


def terminal(screen: Screen, clock: Clock, *, size: list[int], color: bool = False, lines: int = 6) -> Terminal:
    """A progress on `screen`, whose size is looked up in `size` (columns, rows) each time."""
    return Terminal(screen, color=color, colors="", log_lines=lines, clock=clock, size=lambda: (size[0], size[1]))


def running() -> list[Event]:
    """Two steps that run, one with a transfer and one with output."""
    return [
        Planned(vertex=vertex(1), name="[stage-0 1/2] FROM docker.io/library/busybox"),
        Planned(vertex=vertex(2), name="[stage-0 2/2] RUN make"),
        Started(vertex=vertex(1), time=START),
        Started(vertex=vertex(2), time=START),
        Transfer(vertex=vertex(1), time=START, id="sha256:abc", current=0, total=4_000_000),
        Transfer(vertex=vertex(1), time=START + 1, id="sha256:abc", current=1_000_000, total=4_000_000),
        Log(vertex=vertex(2), time=START + 1.0, stream=1, data=b"".join(b"line %d\n" % n for n in range(9))),
        Log(vertex=vertex(2), time=START + 1.5, stream=1, data=b"10%\r20%"),
        Log(vertex=vertex(2), time=START + 2.0, stream=1, data=b"\r30"),
    ]


def test_a_build_is_left_on_the_screen(snapshot: SnapshotAssertion) -> None:
    """When it is over, the screen has one line per step and a summary; the cursor is shown again."""
    clock, screen = Clock(), Screen(80)
    progress = terminal(screen, clock, size=[80, 24])
    feed(progress, clock, failing_build())
    progress.close()

    assert snapshot == screen.shown()
    assert not screen.cursor_hidden


def test_what_runs_is_shown(snapshot: SnapshotAssertion) -> None:
    """Running steps have their time, a bar for each transfer, and the last lines of their output."""
    clock, screen = Clock(), Screen(80)
    progress = terminal(screen, clock, size=[80, 24], lines=3)
    feed(progress, clock, iter(running()))
    progress._draw()
    shown = screen.shown()
    progress.close()

    assert snapshot == shown


def test_colours(snapshot: SnapshotAssertion) -> None:
    """With colours every line ends without one."""
    clock, out = Clock(), io.StringIO()
    progress = Terminal(out, color=True, colors="run=green", log_lines=2, clock=clock, size=lambda: (60, 20))
    feed(progress, clock, failing_build())
    progress.close()

    for line in out.getvalue().splitlines():
        last = re.findall(r"\x1b\[[0-9;]*m", line)[-1:]
        assert last in ([], ["\x1b[0m"])
    assert "\x1b[32m" in out.getvalue()
    assert snapshot == out.getvalue().rpartition("\x1b[?2026h")[2]


@pytest.mark.parametrize("columns", [20, 33, 200])
@pytest.mark.parametrize("rows", [2, 5, 50])
def test_no_frame_is_larger_than_the_terminal(columns: int, rows: int) -> None:
    """Whatever the size, live lines neither wrap nor scroll, so the next frame finds them again."""
    clock, screen = Clock(), Screen(columns)
    progress = terminal(screen, clock, size=[columns, rows])
    feed(progress, clock, iter(running()))
    for _ in range(5):
        clock.now += 1
        progress._draw()
    shown = screen.shown().splitlines()
    progress.close()

    assert len(shown) < rows
    assert all(len(line) < columns for line in shown)
    assert 1 == sum(line.startswith("[+]") for line in shown)


def test_a_resize_leaves_nothing_behind() -> None:
    """When the terminal became narrower and wrapped the last frame, the next one still takes its place."""
    clock, screen = Clock(), Screen(80)
    size = [80, 24]
    progress = terminal(screen, clock, size=size)
    feed(progress, clock, iter(running()))
    progress._draw()
    # A terminal wraps what it shows when it is made narrower.
    screen.columns = size[0] = 40
    wrapped = [line[at : at + 40] for line in screen.lines[:-1] for at in range(0, max(1, len(line)), 40)]
    screen.lines, screen.row = [*wrapped, ""], len(wrapped)
    progress._draw()
    shown = screen.shown()
    progress.close()

    assert 1 == shown.count("[+] Building")
    assert 1 == shown.count("RUN make")


def test_a_cached_build_starts_no_thread() -> None:
    """Nothing that is only needed while something runs is paid for when nothing does."""
    code = (
        "import sys, threading, io\n"
        "from builder.events import *\n"
        "from builder.progress import create\n"
        "p = create('tty', io.StringIO(), terminal=True, clock=lambda: 0.0, size=lambda: (80, 24))\n"
        "p.emit(Planned(vertex=VertexId('v'), name='RUN x'))\n"
        "p.emit(Completed(vertex=VertexId('v'), time=0.0, cached=True))\n"
        "assert threading.active_count() == 1\n"
        "p.close()\n"
        "assert 'tqdm' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (0, "") == (done.returncode, done.stderr)


def test_times_run_while_nothing_happens() -> None:
    """A step that is silent is still seen to be running."""
    import time

    screen = Screen(80)
    progress = Terminal(screen, color=False, colors="", log_lines=6, clock=time.monotonic, size=lambda: (80, 24))
    progress.emit(Planned(vertex=vertex(1), name="RUN sleep"))
    progress.emit(Started(vertex=vertex(1), time=time.monotonic()))
    deadline = time.monotonic() + 5
    while not re.search(r"RUN sleep +0\.[2-9]s", screen.shown()) and time.monotonic() < deadline:
        time.sleep(0.02)
    seen = screen.shown()
    progress.emit(Completed(vertex=vertex(1), time=time.monotonic()))
    progress.close()

    assert re.search(r"RUN sleep +0\.[2-9]s", seen)


@pytest.mark.parametrize(
    ("text", "columns", "shown"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "abc"),
        ("日本語", 5, "日本"),
        ("e\N{COMBINING ACUTE ACCENT}te", 2, "e\N{COMBINING ACUTE ACCENT}t"),
        ("\x1b[31mabcd", 3, "\x1b[31mabc\x1b[0m"),
        ("a\tb", 9, "a       b"),
        ("a\tb", 4, "a   "),
    ],
)
def test_clip(text: str, columns: int, shown: str) -> None:
    """Lines are measured in columns: wide characters take two, accents and colours none, tabs what is left of eight."""
    assert shown == clip(text, columns)
    assert width(clip(text, columns)) <= columns


def test_buildkit_colors() -> None:
    """BUILDKIT_COLORS takes names and numbers, as with BuildKit."""
    parsed = Colors.parse("run=light-blue:error=255,80,0")

    assert ("94", "38;2;255;80;0", Colors().warning) == (parsed.run, parsed.error, parsed.warning)


@pytest.mark.parametrize("text", ["run", "run=", "run=mauve", "run=1,2", "run=1,2,256", "other=red"])
def test_colors_that_mean_nothing(text: str) -> None:
    """A value that cannot be honoured is refused with the part that is wrong."""
    with pytest.raises(UsageError, match="BUILDKIT_COLORS"):
        Colors.parse(text)
