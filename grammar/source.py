"""A Dockerfile's text as logical lines: directives, comments, continuations and heredoc bodies, with their places.

Knows lines and escape characters; what a line says is read elsewhere.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator

from grammar.ast import Comment
from grammar.diagnostics import Diagnostic, Position, Span
from grammar.errors import ParseError
from grammar.text import WIDE_BLANKS

LINE_LIMIT = 65535
_DIRECTIVE = re.compile(r"([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+)$")
_DIRECTIVES = ("syntax", "escape", "check")
CONTINUED = {
    "\\": re.compile(r"(?<!\\)\\[ \t]*$"),
    "`": re.compile(r"(?<!`)`[ \t]*$"),
}
"""What ends a line that is continued, for each escape character."""


class Line:
    """One logical line: its text, where each piece of it stands, and the comments around it."""

    __slots__ = (
        "_columns",
        "_numbers",
        "_starts",
        "comments",
        "first",
        "inner",
        "last",
        "merged",
        "open",
        "reference_comments",
        "text",
    )

    def __init__(self, number: int) -> None:
        self.text = ""
        self.first = number
        self.last = number
        # Whether the file ended where the line was to go on.
        self.open = False
        # Whether it breaks within a character.
        self.merged = False
        self.comments: tuple[str, ...] = ()
        # Comments as the reference parser keeps them: of an indented one only its first character is taken away.
        self.reference_comments: tuple[str, ...] = ()
        self.inner: list[Comment] = []
        self._starts: list[int] = []
        self._numbers: list[int] = []
        self._columns: list[int] = []

    def add(self, offset: int, number: int, column: int) -> None:
        """Note that the text from `offset` on stands in line `number` from `column` on."""
        self._starts.append(offset)
        self._numbers.append(number)
        self._columns.append(column)

    def merge(self, pieces: list[str]) -> None:
        """Take together what is a character only together, its bytes being in several lines: it ends the first of them.

        What follows it in the others is found some columns to the left.
        """
        self.merged = True
        self.text = self.text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
        self._starts = []
        at = seen = end = 0
        for piece in pieces:
            self._starts.append(at)
            end += len(piece.encode("utf-8", "surrogateescape"))
            while seen < end:
                seen += len(self.text[at].encode("utf-8", "surrogateescape"))
                at += 1

    def position(self, offset: int) -> Position:
        """Return where the character at `offset` of the text stands in the file."""
        starts = self._starts
        if len(starts) == 1:
            return Position(self._numbers[0], self._columns[0] + offset)
        index = max(bisect_right(starts, offset) - 1, 0)
        return Position(self._numbers[index], self._columns[index] + offset - starts[index])

    def offset(self, position: Position) -> int:
        """Return the offset of the character at a place that this line covers: the inverse of `position`."""
        index = self._numbers.index(position.line)
        return self._starts[index] + position.column - self._columns[index]

    def breaks(self) -> list[tuple[int, int]]:
        """Return (offset, number) for each continuation: where in the text it begins, and the line it is in."""
        return list(zip(self._starts[1:], self._numbers[1:], strict=True))

    def span(self, start: int, end: int) -> Span:
        """Return the place of a stretch of the text."""
        if len(self._starts) == 1:
            number, column = self._numbers[0], self._columns[0]
            return Span(Position(number, column + start), Position(number, column + end))
        last = self.position(max(end - 1, start))
        return Span(self.position(start), Position(last.line, last.column + (1 if end > start else 0)))


class Source:
    """Reads a file once, from top to bottom; `directives`, `comments` and `escape` fill up on the way."""

    def __init__(self, data: bytes, *, name: str = "Dockerfile", escape: str = "\\", directives: bool = True) -> None:
        text = data.decode("utf-8", "surrogateescape")
        self.name = name
        self.text = text.removeprefix("\ufeff")
        self.escape = escape
        self.directives: dict[str, str] = {}
        self.comments: list[Comment] = []
        self._lines = self.text.splitlines(keepends=True) if _only_newlines(self.text) else _split(self.text)
        self._next = 0
        self._seen: dict[str, int] | None = {} if directives else None
        self._check_lengths()

    @property
    def line_count(self) -> int:
        """The number of physical lines."""
        return len(self._lines)

    def physical(self, number: int) -> str:
        """Return a line as written, without its ending."""
        return self._lines[number - 1].rstrip("\r\n")

    def verbatim(self, first: int, last: int) -> str:
        """Return whole lines as written, with their endings."""
        return "".join(self._lines[first - 1 : last])

    def fail(self, code: str, message: str, span: Span | None, hint: str = "") -> ParseError:
        """Return the error for a place in this file."""
        diagnostic = Diagnostic(code=code, message=message, span=span, hint=hint)
        return ParseError((diagnostic,), source=self.text, name=self.name)

    def line_span(self, first: int, last: int) -> Span:
        """Return the place of whole lines, from the first character that is not blank."""
        text = self._lines[first - 1].rstrip("\r\n") if first <= len(self._lines) else ""
        indent = len(text) - len(text.lstrip(WIDE_BLANKS))
        end = self._lines[last - 1].rstrip("\r\n") if last <= len(self._lines) else ""
        start = Position(first, indent + 1)
        return Span(start, max(Position(last, len(end) + 1), start))

    def _check_lengths(self) -> None:
        # A character takes four bytes at most.
        for number, line in enumerate(self._lines, 1):
            if len(line) * 4 > LINE_LIMIT and len(line.rstrip("\n").encode("utf-8", "surrogateescape")) > LINE_LIMIT:
                raise self.fail(
                    "line-too-long",
                    f"dockerfile line greater than max allowed size of {LINE_LIMIT}",
                    self.line_span(number, number),
                    "break the line with continuations, or COPY a file that holds the text",
                )

    def lines(self) -> Iterator[Line]:
        """Yield the logical lines; heredoc bodies have to be taken (`body`) before the next line is asked for."""
        comments: list[str] = []
        reference: list[str] = []
        lines = self._lines
        while self._next < len(lines):
            raw = lines[self._next].rstrip("\r\n")
            self._next += 1
            stripped = raw.lstrip(WIDE_BLANKS)
            if not stripped:
                self._seen = None
                continue
            if stripped[0] == "#":
                self._comment(raw, stripped, comments, reference)
                continue
            self._seen = None
            line = self._logical(stripped, len(raw) - len(stripped))
            line.comments = tuple(comments)
            line.reference_comments = tuple(reference)
            comments.clear()
            reference.clear()
            yield line

    def _comment(self, raw: str, stripped: str, comments: list[str], reference: list[str]) -> None:
        """Take a comment line at the top level: a directive, or a comment for what follows."""
        if self._seen is not None and self._directive(stripped):
            return
        text = stripped[1:].strip(WIDE_BLANKS)
        self.comments.append(self._comment_at(text, len(raw) - len(stripped), raw))
        for collected, kept in ((comments, text), (reference, raw[1:].strip(WIDE_BLANKS))):
            if kept:
                collected.append(kept)
            else:
                collected.clear()

    def _comment_at(self, text: str, indent: int, raw: str) -> Comment:
        number = self._next
        return Comment(text=text, span=Span(Position(number, indent + 1), Position(number, len(raw) + 1)))

    def _directive(self, stripped: str) -> bool:
        """Take a parser directive; False, and no more of them, where the line is none."""
        assert self._seen is not None
        match = _DIRECTIVE.match(stripped[1:].strip(WIDE_BLANKS))
        key = match[1].lower() if match else ""
        if match is None or key not in _DIRECTIVES:
            self._seen = None
            return False
        number = self._next
        if key in self._seen:
            first = self._seen[key]
            raise self.fail(
                "directive-repeated",
                f"only one {key} parser directive can be used",
                self.line_span(first, first),
                f"remove this one or the one in line {number}",
            )
        self._seen[key] = number
        value = match[2]
        if key == "escape":
            if value not in CONTINUED:
                raise self.fail(
                    "directive-escape",
                    f"invalid escape token '{value}' does not match ` or \\",
                    self.line_span(number, number),
                    "write `# escape=`` or leave the line out",
                )
            self.escape = value
        self.directives[key] = value
        return True

    def _logical(self, stripped: str, indent: int) -> Line:
        """Join the line at hand with its continuations."""
        line = Line(self._next)
        continued = CONTINUED[self.escape]
        line.add(0, self._next, indent + 1)
        end = continued.search(stripped) if self.escape in stripped else None
        if end is None:
            line.text = stripped
            return line
        pieces = [stripped[: end.start()]]
        length = end.start()
        lines = self._lines
        while end is not None and self._next < len(lines):
            raw = lines[self._next].rstrip("\r\n")
            self._next += 1
            blank_free = raw.lstrip(WIDE_BLANKS)
            if not blank_free:
                continue
            if blank_free[0] == "#":
                comment = self._comment_at(blank_free[1:].strip(WIDE_BLANKS), len(raw) - len(blank_free), raw)
                line.inner.append(comment)
                self.comments.append(comment)
                continue
            end = continued.search(raw) if self.escape in raw else None
            piece = raw if end is None else raw[: end.start()]
            line.add(length, self._next, 1)
            pieces.append(piece)
            length += len(piece)
        line.text = "".join(pieces)
        if any(piece and _is_escaped(piece[0]) for piece in pieces[1:]):
            line.merge(pieces)
        line.last = self._next
        line.open = end is not None
        return line

    def body(self, line: Line, name: str, *, chomp: bool) -> tuple[str, Span]:
        """Take the lines up to the one that is `name`; return them as written, and their place. ParseError."""
        first = self._next + 1
        lines = self._lines
        while self._next < len(lines):
            text = lines[self._next].rstrip("\r\n")
            self._next += 1
            if (text.lstrip("\t") if chomp else text) == name:
                line.last = self._next
                content = "".join(lines[first - 1 : self._next - 1])
                return content, Span(Position(first, 1), Position(self._next, len(text) + 1))
        raise self.fail(
            "heredoc-unterminated",
            "unterminated heredoc",
            self.line_span(line.first, len(lines)),
            f"end it with a line that holds {name} and nothing else",
        )


def read_directives(text: str) -> dict[str, str]:
    """Return the directives at the top of a text; none of them if one is repeated or means nothing."""
    source = Source(text.encode("utf-8", "surrogateescape"))
    try:
        next(source.lines(), None)
    except ParseError:
        return {}
    return source.directives


def _is_escaped(character: str) -> bool:
    """Whether a character stands for a byte that is no UTF-8 (surrogateescape)."""
    return "\udc80" <= character <= "\udcff"


def _only_newlines(text: str) -> bool:
    """Whether `str.splitlines` breaks the text at newlines only, carriage returns before them included."""
    return text.isascii() and not re.search(r"[\x0b\x0c\x1c\x1d\x1e]|\r(?!\n)", text)


def _split(text: str) -> list[str]:
    lines = [f"{line}\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]
