"""Places in a source text and what there is to say about them: positions, spans, diagnostics with their caret frame.

Knows nothing of the language; the builder uses the same types for its own located errors.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from grammar.record import Record

_TAB_WIDTH = 4
_FRAME_WIDTH = 160


class Position(NamedTuple):
    """A place in a source text; both numbers start at 1 and the column counts characters."""

    line: int
    column: int


class Span(NamedTuple):
    """A stretch of a source text from `start` to just before `end`."""

    start: Position
    end: Position

    @property
    def lines(self) -> tuple[int, int]:
        """The first and the last line it touches, 1-based and inclusive."""
        last = self.end.line
        if self.end.column == 1 and last > self.start.line:
            last -= 1
        return self.start.line, last


class Severity(Enum):
    """How grave a diagnostic is; the value is the word it prints as."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Diagnostic(Record):
    """One thing to tell the user about one place.

    `code` is a stable lower-case word with hyphens; `message` one line without a period; `hint` the next action, may be
    empty; `span` is None where the whole file is meant.
    """

    severity: Severity = Severity.ERROR
    code: str
    message: str
    span: Span | None
    hint: str = ""

    def render(self, source: str, name: str = "Dockerfile") -> str:
        """Return the text form: `name:3:6: error[code]: message`, the source line, a caret and the hint.

        `source` is the text that the span refers to. The result has no trailing newline, and control characters of the
        source do not reach it.
        """
        head = f"{self.severity.value}[{self.code}]: {_visible(self.message)}"
        if self.span is None:
            frame = [f"{name}: {head}"]
        else:
            start = self.span.start
            frame = [f"{name}:{start.line}:{start.column}: {head}", *_caret_frame(source, self.span)]
        if self.hint:
            frame.append(f"hint: {self.hint}")
        return "\n".join(frame)


def _caret_frame(source: str, span: Span) -> list[str]:
    """The source line the span starts on, and below it carets under the part of the line that the span covers."""
    lines = source.split("\n", span.start.line)
    if span.start.line > len(lines):
        return []
    line = lines[span.start.line - 1].rstrip("\r")
    first = min(span.start.column - 1, len(line))
    last = min(span.end.column - 1, len(line)) if span.end.line == span.start.line else len(line.rstrip())
    last = max(last, first)
    # A line may be 64 KiB long: show a window of it that holds the place.
    offset = max(0, first - _FRAME_WIDTH // 2) if last > _FRAME_WIDTH else 0
    number = str(span.start.line)
    before = _visible(line[offset:first])
    marked = _visible(line[first:last])[:_FRAME_WIDTH]
    after = _visible(line[last : offset + _FRAME_WIDTH])
    shown = f"{'…' if offset else ''}{before}{marked}{after}"
    padding = " " * (len(before) + (1 if offset else 0))
    return [f" {number} | {shown}".rstrip(), f" {' ' * len(number)} | {padding}{'^' * max(1, len(marked))}"]


def _visible(text: str) -> str:
    """The text as it may go to a terminal: tabs widened, every other control character replaced."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " * _TAB_WIDTH if c == "\t" else "�" for c in text)
