"""Plain progress: readable in a log, nothing left out, steps kept apart."""

from __future__ import annotations

import io
import time

from syrupy.assertion import SnapshotAssertion

from builder.events import Completed, Log, Planned, Started, Transfer
from builder.progress.plain import LONGEST_WAIT, PATIENCE, Plain
from tests.builder.progress import START, Clock, failing_build, feed, vertex


def two_running(clock: Clock) -> tuple[Plain, io.StringIO]:
    """Two steps side by side; the first one is speaking."""
    out = io.StringIO()
    progress = Plain(out, clock=clock)
    for number, name in ((1, "one"), (2, "two")):
        progress.emit(Planned(vertex=vertex(number), name=name))
        progress.emit(Started(vertex=vertex(number), time=START))
    return progress, out


def log(number: int, data: bytes, after: float = 0.0) -> Log:
    """Output of a step."""
    return Log(vertex=vertex(number), time=START + after, stream=1, data=data)


def test_a_build(snapshot: SnapshotAssertion) -> None:
    """Every kind of happening, in the words and the order of BuildKit's plain progress."""
    clock, out = Clock(), io.StringIO()
    progress = Plain(out, clock=clock)
    feed(progress, clock, failing_build())
    progress.close()

    assert snapshot == out.getvalue()


def test_steps_do_not_mix() -> None:
    """A step that runs beside the one that speaks waits until that one is done."""
    clock = Clock()
    progress, out = two_running(clock)
    progress.emit(log(2, b"second\n"))
    progress.emit(log(1, b"first\n"))
    progress.emit(Completed(vertex=vertex(1), time=START + 1))
    progress.close()

    expected = "#1 one\n#1 0.000 first\n#1 DONE 1.0s\n\n#2 two\n#2 0.000 second\n"
    assert expected == out.getvalue()


def test_a_silent_step_gives_way() -> None:
    """When the speaker was silent for a while, another step's line comes at once, and the change is marked."""
    clock = Clock()
    progress, out = two_running(clock)
    progress.emit(log(1, b"no line end"))
    clock.now += PATIENCE
    progress.emit(log(2, b"second\n"))
    progress.emit(log(2, b"third\n"))

    assert "#1 one\n#1 0.000 no line end\n#1 ...\n\n#2 two\n#2 0.000 second\n#2 0.000 third\n" == out.getvalue()
    progress.close()


def test_a_talkative_step_gives_way_too() -> None:
    """Nobody waits longer than LONGEST_WAIT, however much the speaker has to say."""
    clock = Clock()
    progress, out = two_running(clock)
    progress.emit(log(2, b"waiting\n"))
    for _ in range(12):
        clock.now += 1
        progress.emit(log(1, b"chatter\n"))
        progress.emit(log(2, b"more\n"))
    waited = out.getvalue().partition("waiting")[0].count("chatter")
    progress.close()

    assert LONGEST_WAIT == waited


def test_waiting_output_appears_by_itself() -> None:
    """When everybody has fallen silent, what waits is written without another event."""
    out = io.StringIO()
    progress = Plain(out, clock=time.monotonic)
    for number in (1, 2):
        progress.emit(Started(vertex=vertex(number), time=START))
    progress.emit(log(2, b"alone\n"))
    deadline = time.monotonic() + PATIENCE + 5
    while "alone" not in out.getvalue() and time.monotonic() < deadline:
        time.sleep(0.05)
    shown = out.getvalue()
    progress.close()

    assert "alone" in shown


def test_a_long_log_is_whole() -> None:
    """Nothing is clipped: neither many lines, nor a very long one, nor one without an end."""
    clock = Clock()
    progress, out = two_running(clock)
    lines = [f"line {number}" for number in range(20_000)]
    progress.emit(log(1, "\n".join(lines).encode() + b"\n" + b"x" * 300_000))
    progress.emit(Completed(vertex=vertex(1), time=START))
    progress.close()

    shown = [line.removeprefix("#1 0.000 ") for line in out.getvalue().splitlines() if line.startswith("#1 0.000 ")]
    assert [*lines, "x" * 300_000] == shown


def test_colours_end_with_their_line() -> None:
    """A step that forgets to switch a colour off does not paint the next step's lines."""
    clock = Clock()
    progress, out = two_running(clock)
    progress.emit(log(1, b"\x1b[31mred\nplain\n"))
    progress.close()

    assert "#1 0.000 \x1b[31mred\x1b[0m\n#1 0.000 plain\n" in out.getvalue()


def test_transfers_are_reported_now_and_then() -> None:
    """A log is no place for a moving bar: the first, one every five seconds, and the end."""
    clock = Clock()
    progress, out = two_running(clock)
    for second in range(12):
        progress.emit(
            Transfer(vertex=vertex(1), time=START + second, id="layer", current=second * 1_000_000, total=12_000_000)
        )
    progress.emit(Transfer(vertex=vertex(1), time=START + 12, id="layer", current=12_000_000, total=None, done=True))
    progress.close()

    expected = ["0B / 12.00MB", "5.00MB / 12.00MB", "10.00MB / 12.00MB", "12.00MB done"]
    assert expected == [line.partition("layer ")[2] for line in out.getvalue().splitlines() if "layer " in line]
