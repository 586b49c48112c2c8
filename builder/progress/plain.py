"""Progress as lines of text for logs and pipes, in the form of BuildKit's plain progress.

Every line says which step it is about. The output of one step stays together: steps that run beside it wait until it is
silent for `PATIENCE`, but never longer than `LONGEST_WAIT`. Nothing of a step's output is left out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TextIO, assert_never

from builder.events import Completed, Event, Log, Planned, Started, Transfer, VertexId, Warned
from builder.progress.logtext import NEWLINE, RETURN, LogText
from builder.progress.words import outcome, transferred, warning_lines
from grammar import Diagnostic

PATIENCE = 3.0
"""Seconds after which a silent step lets another one speak."""
LONGEST_WAIT = 10.0
"""Seconds that a step with something to say waits for one that does not fall silent."""
ROOM = 1 << 18
"""Characters that a waiting step may have to say before it is let in."""
REPORT_EVERY = 5.0
"""Seconds between two lines about one transfer."""

_STYLE_END = "\x1b[0m"
_PLAIN_AGAIN = (_STYLE_END, "\x1b[m")


class Plain:
    """Writes a line per happening to `out`; `clock` (seconds) only decides when a waiting step may speak."""

    def __init__(self, out: TextIO, *, clock: Callable[[], float]) -> None:
        self._out = out
        self._clock = clock
        self._lock = threading.Lock()
        self._steps: dict[VertexId, _Step] = {}
        self._names: dict[VertexId, str] = {}
        self._speaking: _Step | None = None
        self._spoke_at = 0.0
        self._first = True
        self._warnings: list[Diagnostic] = []
        self._waker: threading.Timer | None = None

    def emit(self, event: Event) -> None:
        """Take one event and write what is due."""
        with self._lock:
            self._take(event)

    def close(self) -> None:
        """Write what still waits, and the warnings."""
        with self._lock:
            if self._waker is not None:
                self._waker.cancel()
            for step in self._steps.values():
                step.finish_logs()
                if step.waiting:
                    self._let_speak(step)
            if lines := warning_lines(self._warnings):
                self._out.write("\n" + "\n".join(lines) + "\n")
            self._out.flush()

    def _take(self, event: Event) -> None:
        match event:
            case Planned():
                self._names[event.vertex] = event.name
            case Started():
                self._turn(self._step(event.vertex, event.time))
            case Log():
                step = self._step(event.vertex, event.time)
                step.log(event)
                self._turn(step)
            case Transfer():
                step = self._step(event.vertex, event.time)
                step.transfer(event)
                self._turn(step)
            case Completed():
                step = self._step(event.vertex, event.time)
                step.complete(event)
                self._turn(step)
            case Warned():
                self._warnings.append(event.diagnostic)
            case _:
                assert_never(event)

    def _step(self, vertex: VertexId, time: float) -> _Step:
        """Return the step of `vertex`; steps are numbered in the order in which something is heard of them."""
        step = self._steps.get(vertex)
        if step is None:
            step = _Step(len(self._steps) + 1, self._names.get(vertex, vertex), time)
            self._steps[vertex] = step
        return step

    def _turn(self, step: _Step) -> None:
        """Decide who speaks now that `step` has something to say."""
        now = self._clock()
        step.since = step.since or now
        due = now - self._spoke_at >= PATIENCE or now - step.since >= LONGEST_WAIT or step.length > ROOM
        if due or self._speaking in (None, step):
            self._let_speak(step)
            self._spoke_at = now
            self._next_speaker()
        elif self._waker is None:
            # The speaker may stay silent for hours, and so may the one that waits.
            self._waker = threading.Timer(PATIENCE, self._wake)
            self._waker.daemon = True
            self._waker.start()

    def _next_speaker(self) -> None:
        """While nobody speaks, let those that wait say what they have; the first unfinished one goes on speaking."""
        for waiting in list(self._steps.values()):
            if self._speaking is not None:
                return
            if waiting.waiting:
                self._let_speak(waiting)

    def _wake(self) -> None:
        with self._lock:
            self._waker = None
            for step in list(self._steps.values()):
                if step.waiting and step is not self._speaking:
                    self._turn(step)

    def _let_speak(self, step: _Step) -> None:
        """Write all that `step` has to say; it goes on speaking until it is finished or another one's turn comes."""
        if self._speaking is not step:
            if self._speaking is not None:
                self._out.write(f"{self._speaking.interrupt()}#{self._speaking.number} ...\n")
            self._out.write(f"{'' if self._first else chr(10)}#{step.number} {step.name}\n")
            self._first = False
        self._out.write(step.take())
        self._out.flush()
        self._speaking = None if step.completed else step


class _Step:
    """What one step has to say and has not said yet."""

    def __init__(self, number: int, name: str, started: float) -> None:
        self.number = number
        self.name = name
        self.started = started
        self.completed = False
        self.waiting: list[str] = []
        self.length = 0
        self.since = 0.0
        """When it began to wait, by the consumer's clock; 0 while nothing waits."""
        self._texts: dict[int, LogText] = {}
        self._open_stream = 0
        """The stream whose line is not at its end yet; 0 when the next text begins a line."""
        self._styled = False
        self._heard = started
        self._reported: dict[str, float] = {}

    def log(self, event: Log) -> None:
        """Take a piece of output."""
        self._heard = event.time
        text = self._texts.setdefault(event.stream, LogText())
        self._tokens(event.stream, text.feed(event.data), event.time)

    def transfer(self, event: Transfer) -> None:
        """Report how far a transfer is: when it is done, and now and then before."""
        last = self._reported.get(event.id)
        if not event.done and last is not None and event.time - last < REPORT_EVERY:
            return
        self._reported[event.id] = event.time
        amount = transferred(event.current, None if event.done else event.total)
        self._line(" ".join(filter(None, (event.id, amount, "done" if event.done else ""))))

    def complete(self, event: Completed) -> None:
        """Say how it ended."""
        self.finish_logs()
        self.completed = True
        word = outcome(event)
        match word:
            case "DONE":
                word = f"DONE {event.time - self.started:.1f}s"
            case "ERROR":
                word = f"ERROR: {event.error}"
        self._line(f"{word} ({event.note})" if event.note else word)

    def finish_logs(self) -> None:
        """Give out what the streams held back, and end the line they are in."""
        for stream, text in self._texts.items():
            self._tokens(stream, text.feed(b"", final=True), self._heard)
        self._end_line()

    def interrupt(self) -> str:
        """Return what ends the line that was written so far, because another step speaks next."""
        self._end_line()
        return self.take()

    def take(self) -> str:
        """Return all that waits to be said, and forget it."""
        text = "".join(self.waiting)
        self.waiting.clear()
        self.length = 0
        self.since = 0.0
        return text

    def _tokens(self, stream: int, tokens: list[str], time: float) -> None:
        for token in tokens:
            if token in (NEWLINE, RETURN):
                if token == NEWLINE and not self._open_stream:
                    self._begin_line(stream, time)
                self._end_line()
                continue
            if self._open_stream != stream:
                self._end_line()
                self._begin_line(stream, time)
            self._add(token)
            if (last := token.rfind("\x1b")) >= 0:
                self._styled = not token.startswith(_PLAIN_AGAIN, last)

    def _begin_line(self, stream: int, time: float) -> None:
        self._add(f"#{self.number} {max(0.0, time - self.started):.3f} ")
        self._open_stream = stream

    def _end_line(self) -> None:
        if self._open_stream:
            self._add(f"{_STYLE_END if self._styled else ''}\n")
        self._open_stream = 0
        self._styled = False

    def _line(self, text: str) -> None:
        self._end_line()
        self._add(f"#{self.number} {text}\n")

    def _add(self, text: str) -> None:
        self.waiting.append(text)
        self.length += len(text)
