"""Tidies the layout of a Dockerfile without joining or breaking its lines; what the file says is not touched.

The text of a command belongs to the image's history and to its cache key, blanks included: only what stands around it
is moved. `format_ast` prints the other form, one line an instruction.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from grammar.ast import Ast
from grammar.diagnostics import Span
from grammar.errors import ParseError
from grammar.node import Node, read
from grammar.parse import parse
from grammar.source import CONTINUED, Line, Source
from grammar.text import BLANKS, WIDE_BLANKS

_INDENT = "    "
_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\],]|[^\s\[\],"]+')
_SHELL = ("cmd", "entrypoint", "healthcheck", "maintainer", "onbuild", "run", "stopsignal", "user", "workdir")

_INNER_KEYWORDS = {("from", 1, "as"), ("healthcheck", 0, "cmd"), ("healthcheck", 0, "none")}


class LayoutError(Exception):
    """BUG: the tidied text does not say what the file says. Nobody's Dockerfile is at fault."""


class _Atom(NamedTuple):
    """A stretch of a logical line that is kept as it is; `text` is what it is printed as where it has one line."""

    start: int
    end: int
    text: str


def tidy(data: bytes, *, name: str = "Dockerfile") -> bytes:
    """Return the Dockerfile with its layout tidied; tidying that again changes nothing.

    Continued lines stay continued, empty lines stay (one at most), comments and heredoc bodies are kept. Keywords have
    the case that most of them have, upper case if there are as many of both. Line endings are those of the first line,
    a byte order mark is dropped. ParseError for a file that cannot be parsed; LayoutError, after the result has been
    parsed again, where it would not equal the file.
    """
    tree = parse(data, name=name)
    text = _Layout(data, tree).text()
    result = text.encode("utf-8", "surrogateescape")
    try:
        same = parse(result, name=name) == tree
    except ParseError:
        same = False
    if not same:
        raise LayoutError(f"BUG: tidying {name} would change what it says")
    return result


class _Layout:
    """Prints one file: `out` is a list of lines without endings, except that heredoc bodies come with theirs."""

    def __init__(self, data: bytes, tree: Ast) -> None:
        self._source = Source(data, name=tree.name)
        self._upper = _is_upper(tree, self._source)
        self._directives = len(tree.directives)
        first = self._source.text.partition("\n")[0]
        self._ending = "\r\n" if first.endswith("\r") else "\n"
        self._out: list[str] = []
        self._blank = False

    def text(self) -> str:
        """The whole file."""
        above = 1
        for line in self._source.lines():
            self._between(above, line.first)
            end = line.last
            node = read(line, self._source)
            if self._is_odd(line, node):
                self._put([self._source.physical(number) for number in range(line.first, end + 1)])
            else:
                self._put(_Instruction(node, self._source, upper=self._upper).lines())
            if line.last > end:
                # The content of a heredoc is kept with its line endings; the last line is its name.
                self._out.append(self._source.verbatim(end + 1, line.last - 1))
                self._put([self._source.physical(line.last)])
            above = line.last + 1
        self._between(above, self._source.line_count + 1)
        return "".join(self._out)

    def _is_odd(self, line: Line, node: Node) -> bool:
        """Whether the text ends in an escape character, the file in blanks that count, or a line within a character.

        Such lines are kept.
        """
        if line.merged or (line.open and (node.keyword == "onbuild" or line.text.endswith("\r"))):
            return True
        return CONTINUED[self._source.escape].search(line.text.rstrip(WIDE_BLANKS)) is not None

    def _put(self, lines: list[str]) -> None:
        self._out += [f"{line}{self._ending}" for line in lines]
        self._blank = False

    def _between(self, first: int, end: int) -> None:
        """Print the comments, directives and empty lines before line `end`."""
        for number in range(first, end):
            text = self._source.physical(number).strip(WIDE_BLANKS)
            if not text:
                self._blank = True
                continue
            # Behind an empty line no comment is taken for a directive.
            if self._blank and (self._out or "=" in text):
                self._out.append(self._ending)
            # Directives come before all comments.
            self._put([_directive(text) if self._directives else text])
            self._directives = max(self._directives - 1, 0)
        if self._blank and self._out and end <= self._source.line_count:
            self._out.append(self._ending)
        self._blank = False


def _directive(text: str) -> str:
    key, _, value = text[1:].partition("=")
    return f"# {key.strip(WIDE_BLANKS).lower()}={value.strip(WIDE_BLANKS)}"


def _is_upper(tree: Ast, source: Source) -> bool:
    """Whether most keywords are in upper case, as BuildKit's ConsistentInstructionCasing counts: from FROM on."""
    lines = source.text.split("\n")
    balance = 0
    counted = False
    for instruction in tree.instructions:
        counted = counted or instruction.keyword == "from"
        start = instruction.span.start
        word = lines[start.line - 1][start.column - 1 : start.column - 1 + len(instruction.keyword)]
        if counted:
            balance += word.isupper() - word.islower()
    return balance >= 0


class _Instruction:
    """Prints one instruction, without the bodies of its heredocs."""

    def __init__(self, node: Node, source: Source, *, upper: bool) -> None:
        self._node = node
        self._line = node.line
        self._source = source
        self._upper = upper
        # The stored text of a trigger keeps the blanks at its end.
        self._text = node.line.text if node.keyword == "onbuild" else node.text
        self._breaks = self._line.breaks()
        self._atoms = list(self._with_gaps(sorted(self._find())))
        last = self._atoms[-1]
        # A command of several lines keeps its indentation, and what stands above it in line with it does too.
        self._as_written = (
            node.keyword in _SHELL and not node.json and any(last.start < at < last.end for at, _ in self._breaks)
        )

    def lines(self) -> list[str]:
        """The physical lines."""
        # A first line that is nothing but continued has comments behind it, and no words.
        above = self._comments(self._line.first, self._number(self._atoms[0].start), "")
        parts = [f"{self._source.escape}\n{above}" if above else "", self._atom(self._atoms[0])]
        for before, atom in zip(self._atoms, self._atoms[1:], strict=False):
            parts += (self._gap(before, atom), self._atom(atom))
        parts.append(self._tail(self._atoms[-1].end))
        return "".join(parts).split("\n")

    def _cased(self, text: str) -> str:
        return text.upper() if self._upper else text.lower()

    def _find(self) -> Iterator[_Atom]:
        """Keyword, flags, and the arguments in the form they have."""
        node = self._node
        text = self._text
        start = node.start + len(node.word.text)
        yield _Atom(node.start, start, self._cased(node.word.text))
        if node.keyword == "onbuild":
            rest = text[start:].lstrip(WIDE_BLANKS)
            yield _Atom(len(text) - len(rest), len(text), rest)
            return
        for flag in node.flags:
            atom = self._spanned(flag.span)
            start = max(start, atom.end)
            yield atom
        if node.json:
            for index, match in enumerate(_JSON_TOKEN.finditer(text, start)):
                yield self._word(match.start(), match.end(), index)
            return
        first = node.pairs[0][0] if node.legacy else node.words[0] if node.words else None
        if first is not None and (node.legacy or first.text.startswith("[")):
            # With other blanks, a key and its value may become one word, and words that are no JSON may become some.
            start = self._line.offset(first.span.start)
            yield _Atom(start, len(text), text[start:])
            return
        for key, value in node.pairs:
            yield self._spanned(Span(key.span.start, (value or key).span.end))
        for index, word in enumerate(node.words):
            atom = self._spanned(word.span)
            yield self._word(atom.start, atom.end, index)

    def _word(self, start: int, end: int, index: int) -> _Atom:
        """An argument; AS of a FROM and CMD or NONE of a HEALTHCHECK are keywords too."""
        text = self._text[start:end]
        keyword = self._node.keyword
        if (keyword, index, text.lower()) in _INNER_KEYWORDS:
            text = self._cased(text)
        return _Atom(start, end, text)

    def _spanned(self, span: Span) -> _Atom:
        first, last = self._line.offset(span.start), self._line.offset(span.end)
        return _Atom(first, last, self._text[first:last])

    def _with_gaps(self, atoms: list[_Atom]) -> Iterator[_Atom]:
        """The atoms, and between them whatever is no blank, such as the `--` that ends the flags.

        Wider blanks count: behind one of them nothing is a flag or JSON.
        """
        text = self._text
        at = atoms[0].start
        for atom in [*atoms, _Atom(len(text), len(text), "")]:
            while at < atom.start:
                if text[at] in BLANKS:
                    at += 1
                    continue
                end = at
                while end < atom.start and text[end] not in BLANKS:
                    end += 1
                yield _Atom(at, end, text[at:end])
                at = end
            if atom.end > atom.start:
                yield atom
            at = max(at, atom.end)

    def _atom(self, atom: _Atom) -> str:
        inside = [(at, number) for at, number in self._breaks if atom.start < at < atom.end]
        if not inside:
            return atom.text
        parts = []
        at = atom.start
        above = self._number(atom.start)
        for offset, number in inside:
            parts.append(f"{self._text[at:offset]}{self._source.escape}\n{self._comments(above, number, None)}")
            at, above = offset, number
        return "".join(parts) + self._text[at : atom.end]

    def _gap(self, before: _Atom, atom: _Atom) -> str:
        """What stands between two atoms: a blank, or the end of a line and the indentation of the next."""
        inside = [(at, number) for at, number in self._breaks if before.end <= at <= atom.start]
        if not inside:
            written = self._text[before.end : atom.start]
            if written.strip(" \t"):
                # A carriage return or form feed separates words, but not those of a heredoc.
                return written
            if before.text.endswith(self._source.escape):
                return written  # an escaped blank is no end of a word where heredocs are looked for
            tight = self._node.json and (before.text == "[" or atom.text in ("]", ","))
            return "" if tight else " "
        first = self._number(before.end - 1)
        at, number = inside[-1]
        indent = "" if self._node.json and atom.text == "]" else _INDENT
        if self._as_written:
            indent = self._text[at : atom.start]
        blank = " "
        if before.text.endswith(self._source.escape):
            blank, indent = self._text[before.end : inside[0][0]], self._text[at : atom.start]
        comments = self._comments(first, number, None if self._as_written else _INDENT)
        return f"{blank}{self._source.escape}\n{comments}{indent}"

    def _tail(self, end: int) -> str:
        """What stands behind the last atom: comments of continuations that never come, else nothing."""
        comments = self._comments(self._number(end - 1), self._line.last + 1, None if self._as_written else _INDENT)
        if comments:
            return f" {self._source.escape}\n{comments}".removesuffix("\n")
        return ""

    def _number(self, offset: int) -> int:
        """The line of the character at an offset."""
        return self._line.position(offset).line

    def _comments(self, above: int, below: int, indent: str | None) -> str:
        """The comment lines between two lines, with the indentation they have where none is given."""
        found = []
        for comment in self._line.inner:
            number = comment.span.start.line
            if above < number < below:
                text = self._source.physical(number).rstrip(WIDE_BLANKS)
                found.append(text if indent is None else indent + text.lstrip(WIDE_BLANKS))
        return "".join(f"{text}\n" for text in found)
