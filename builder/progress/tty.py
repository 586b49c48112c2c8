"""Progress on a terminal: finished steps scroll away, running ones stay with their time, transfers and last output.

A failed step's output is shown by whoever reports the error; the whole of every log is stored elsewhere.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TextIO, assert_never

from builder.events import Completed, Event, Log, Planned, Started, Transfer, VertexId, Warned
from builder.progress.colors import Colors, paint
from builder.progress.logtext import NEWLINE, RETURN, LogText
from builder.progress.screen import Screen, clip, width, without_styles
from builder.progress.words import outcome, transferred, warning_lines
from grammar import Diagnostic

FRAME = 0.1
"""Seconds between two frames."""


class Terminal:
    """Draws on the terminal `out`; between events a thread keeps the times running."""

    def __init__(
        self,
        out: TextIO,
        *,
        color: bool,
        colors: str,
        log_lines: int,
        clock: Callable[[], float],
        size: Callable[[], tuple[int, int]],
    ) -> None:
        self._screen = Screen(out, size=size)
        # Colours that are written wrongly are refused even where none are shown.
        chosen = Colors.parse(colors)
        self._colors = chosen if color else Colors.none()
        self._plain = not color
        self._log_lines = log_lines
        self._clock = clock
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._drawer: threading.Thread | None = None
        self._began = clock()
        self._drawn_at = 0.0
        self._names: dict[VertexId, str] = {}
        self._running: dict[VertexId, _Step] = {}
        self._lasting: list[str] = []
        """Lines that are to scroll away with the next frame."""
        self._finished = 0
        self._failed = False
        self._warnings: list[Diagnostic] = []

    def emit(self, event: Event) -> None:
        """Take one event; what it changes is shown with the next frame."""
        with self._lock:
            self._take(event)
            if self._clock() - self._drawn_at >= FRAME:
                self._draw()

    def close(self) -> None:
        """Show the last frame: nothing runs any more. The cursor is where the next line begins."""
        self._over.set()
        if self._drawer is not None:
            self._drawer.join()
        with self._lock:
            for vertex in list(self._running):
                self._finish(Completed(vertex=vertex, time=self._clock(), error="canceled"))
            warnings = [paint(line, self._colors.warning) for line in warning_lines(self._warnings)]
            self._screen.draw([*self._lasting, self._header(over=True), *warnings], [])
            self._screen.close()

    def _take(self, event: Event) -> None:
        match event:
            case Planned():
                self._names[event.vertex] = event.name
            case Started():
                self._step(event.vertex, event.time)
                self._start_drawing()
            case Log():
                self._step(event.vertex, event.time).log(event)
            case Transfer():
                self._step(event.vertex, event.time).transfer(event)
            case Completed():
                self._finish(event)
            case Warned():
                self._warnings.append(event.diagnostic)
            case _:
                assert_never(event)

    def _step(self, vertex: VertexId, time: float) -> _Step:
        step = self._running.get(vertex)
        if step is None:
            step = _Step(self._names.get(vertex, vertex), time, self._log_lines)
            self._running[vertex] = step
        return step

    def _finish(self, event: Completed) -> None:
        """Let the line of a step that ended scroll away."""
        step = self._running.pop(event.vertex, None)
        name = step.name if step else self._names.get(event.vertex, event.vertex)
        seconds = event.time - step.started if step else 0.0
        note = f" ({event.note})" if event.note else ""
        self._finished += 1
        word = outcome(event)
        color = {"ERROR": self._colors.error, "CANCELED": self._colors.cancel}.get(word, self._colors.run)
        self._failed = self._failed or event.error is not None
        if word != "DONE":
            name = f"{word} {name}"
        self._lasting.append(self._row(f" => {name}{note}", seconds, color))
        if step is not None:
            self._lasting += [self._row(f" => => {part}", 0.0, color) for part in step.parts()]

    def _start_drawing(self) -> None:
        if self._drawer is None:
            self._drawer = threading.Thread(target=self._keep_drawing, name="progress", daemon=True)
            self._drawer.start()

    def _keep_drawing(self) -> None:
        while not self._over.wait(FRAME):
            with self._lock:
                self._draw()

    def _draw(self) -> None:
        now = self._clock()
        self._drawn_at = now
        self._screen.draw(self._lasting, self._frame(now))
        self._lasting.clear()

    def _frame(self, now: float) -> list[str]:
        """Return the lines of what is running, as many as the terminal has rows for: every step before any log."""
        columns, rows = self._screen.size()
        steps = list(self._running.values())
        room = max(0, rows - 2 - len(steps))
        lines = [self._header(over=False)]
        for left, step in zip(range(len(steps), 0, -1), steps, strict=True):
            details = step.details(columns, now, self._log_color)[-max(1, room // left) :] if room else []
            room -= len(details)
            lines.append(self._row(f" => {step.name}", now - step.started, self._colors.run if step.busy else ""))
            lines += details
        return lines

    def _header(self, *, over: bool) -> str:
        count = f"({self._finished}/{max(len(self._names), self._finished)})"
        end = "" if not over else " FAILED" if self._failed else " FINISHED"
        color = "" if not over else self._colors.error if self._failed else self._colors.run
        return paint(f"[+] Building {self._clock() - self._began:.1f}s {count}{end}", color)

    def _row(self, text: str, seconds: float, color: str) -> str:
        """Return a line with its time at the right edge."""
        columns, _ = self._screen.size()
        time = f" {seconds:.1f}s"
        text = clip(text, max(0, columns - 1 - len(time)))
        return paint(text + " " * (columns - 1 - width(text) - len(time)) + time, color)

    def _log_color(self, text: str) -> str:
        if self._plain:
            return without_styles(text)
        return text if "\x1b" in text else paint(text, self._colors.log)


class _Step:
    """One running step: its transfers and the last lines of its output."""

    def __init__(self, name: str, started: float, log_lines: int) -> None:
        self.name = name
        self.started = started
        self._transfers: dict[str, tuple[float, Transfer]] = {}
        """When each transfer was first heard of, and the latest of it."""
        self._lines: deque[str] = deque(maxlen=log_lines)
        self._height = log_lines
        self._texts: dict[int, LogText] = {}
        self._line = ""
        self._overwritten = False

    @property
    def busy(self) -> bool:
        """Whether something was heard of it since it started."""
        return bool(self._transfers or self._texts)

    def transfer(self, event: Transfer) -> None:
        """Take how far a transfer is."""
        first, _ = self._transfers.get(event.id, (event.time, event))
        self._transfers[event.id] = (first, event)

    def log(self, event: Log) -> None:
        """Take a piece of output; a carriage return goes back to the start of the line, as on a terminal."""
        for token in self._texts.setdefault(event.stream, LogText()).feed(event.data):
            if token == NEWLINE:
                self._lines.append(self._line)
                self._line = ""
                self._overwritten = False
            elif token == RETURN:
                self._overwritten = True
            else:
                # Only the beginning of a line can be seen, however long a program makes it.
                self._line = (token if self._overwritten else self._line + token)[:2000]
                self._overwritten = False

    def parts(self) -> list[str]:
        """Return what was done without moving bytes, such as giving a name: it is worth a lasting line."""
        return [one.id for _, one in self._transfers.values() if one.done and one.total is None and not one.current]

    def details(self, columns: int, now: float, color: Callable[[str], str]) -> list[str]:
        """Return a line per transfer that goes on, and the last lines of output."""
        going_on = [(first, one) for first, one in self._transfers.values() if not one.done]
        lines = [f" => => {_bar(one, columns - 8, now - first)}" for first, one in going_on]
        output = [*self._lines, self._line] if self._line else list(self._lines)
        return lines + [f" => => # {color(line)}" for line in output[-self._height :]]


def _bar(transfer: Transfer, columns: int, elapsed: float) -> str:
    """Return a transfer as tqdm draws it; without a known total there is no bar to draw."""
    if not transfer.total:
        return f"{transfer.id} {transferred(transfer.current, None)}"
    from tqdm import tqdm  # noqa: PLC0415 - most builds transfer nothing

    return str(
        tqdm.format_meter(
            transfer.current,
            transfer.total,
            elapsed,
            ncols=max(20, columns),
            prefix=transfer.id,
            unit="B",
            unit_scale=True,
        )
    )
