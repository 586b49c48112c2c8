"""One instruction as the grammar reads it: keyword, flags and words, before anyone asks whether they make sense."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

from grammar import lalr
from grammar.ast import Flag, Heredoc, Word
from grammar.diagnostics import Diagnostic, Span
from grammar.heredoc import openings
from grammar.source import Line, Source
from grammar.text import BLANKS, WIDE_BLANKS, did_you_mean, quote

UNKNOWN_INSTRUCTION = "unknown-instruction"
"""The code of the fault that tells of one."""

# The shape of each keyword's arguments: a start symbol of dockerfile.lark, and whether a JSON list may stand instead.
SHAPES = {
    "add": ("list", True),
    "arg": ("pairs", False),
    "cmd": ("shell", True),
    "copy": ("list", True),
    "entrypoint": ("shell", True),
    "env": ("pairs", False),
    "expose": ("list", False),
    "from": ("from", False),
    "healthcheck": ("healthcheck", True),
    "label": ("pairs", False),
    "maintainer": ("shell", False),
    "onbuild": ("shell", False),
    "run": ("shell", True),
    "shell": ("shell", True),
    "stopsignal": ("shell", False),
    "user": ("shell", False),
    "volume": ("list", True),
    "workdir": ("shell", False),
}
_EXEC = {"list": "exec", "shell": "exec", "healthcheck": "healthcheck_exec"}
_HEREDOC_KEYWORDS = ("add", "copy", "run")
_SWAPPED = str.maketrans("`\\", "\\`")
_JSON_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
# Few files have any, so these are compiled when they are first needed.
_JSON_ESCAPE = r"\\(?:u([0-9a-fA-F]{4})|([\s\S]))"
_FLAG_QUOTING = r"""\\([\s\S]?)|"((?:[^"\\]|\\[\s\S]?)*)"?|'((?:[^'\\]|\\[\s\S]?)*)'?"""


class Fault(Exception):
    """Something wrong at one place of a file."""

    def __init__(self, code: str, message: str, span: Span, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.span = span
        self.hint = hint

    @property
    def diagnostic(self) -> Diagnostic:
        """What there is to tell the user."""
        return Diagnostic(code=self.code, message=self.message, span=self.span, hint=self.hint)


class Node:
    """A logical line taken apart.

    `words` are the arguments; ENV, LABEL and ARG have `pairs` instead, a value being None where there is no `=`.
    `start` is the offset of the keyword in the line; `json` marks the exec form, `legacy` the form `ENV key value`;
    `child` is what stands behind ONBUILD.
    """

    __slots__ = (
        "child",
        "flags",
        "heredocs",
        "json",
        "keyword",
        "legacy",
        "line",
        "pairs",
        "start",
        "text",
        "word",
        "words",
    )

    def __init__(self, line: Line, text: str, start: int, word: Word) -> None:
        self.line = line
        self.start = start
        self.text = text
        self.word = word
        self.keyword = word.text.lower()
        self.flags: tuple[Flag, ...] = ()
        self.words: list[Word] = []
        self.pairs: list[tuple[Word, Word | None]] = []
        self.json = False
        self.legacy = False
        self.heredocs: tuple[Heredoc, ...] = ()
        self.child: Node | None = None

    @property
    def span(self) -> Span:
        """From the keyword to the end of the logical line."""
        return Span(self.word.span.start, self.line.span(0, len(self.line.text)).end)

    @property
    def arguments(self) -> list[str]:
        """The arguments as a flat list of strings, keys and values of pairs one after the other."""
        if self.child is not None:
            return [self.child.word.text, *self.child.arguments]
        if self.pairs and self.keyword == "arg":
            return [key.text if value is None else f"{key.text}={value.text}" for key, value in self.pairs]
        if self.pairs:
            return [word.text for key, value in self.pairs for word in (key, value) if word is not None]
        return [word.text for word in self.words]


def read(line: Line, source: Source) -> Node:
    """Take a logical line apart, with the heredoc bodies that follow it; Fault or ParseError where it has no shape."""
    node = _read(line, 0, source.escape)
    holder = node.child or node
    if "<<" in line.text and holder.keyword in _HEREDOC_KEYWORDS and not holder.json:
        node.heredocs = holder.heredocs = _heredocs(line, source)
    return node


def _heredocs(line: Line, source: Source) -> tuple[Heredoc, ...]:
    found = []
    at = 0
    for name, expand, chomp, fd, text in openings(line.text):
        content, span = source.body(line, name, chomp=chomp)
        start = line.text.find(text, at)
        if start >= 0:
            at = start + len(text)
            span = line.span(start, at)
        found.append(Heredoc(name=name, content=content, expand=expand, chomp=chomp, fd=fd, text=text, span=span))
    return tuple(found)


def _read(line: Line, offset: int, escape: str, *, trigger: bool = False) -> Node:
    text = line.text.rstrip(WIDE_BLANKS)
    end = offset
    while end < len(text) and text[end] not in BLANKS:
        end += 1
    node = Node(line, text, offset, Word(text=text[offset:end], span=line.span(offset, end)))
    shape = SHAPES.get(node.keyword)
    if shape is None and trigger:
        return node  # whoever runs it is told
    if shape is None:
        known = sorted(SHAPES)
        near = did_you_mean(node.keyword, known)
        if node.word.text.isupper():
            near = near[:15] + near[15:].upper()
        raise Fault(
            UNKNOWN_INSTRUCTION,
            f"unknown instruction: {node.word.text}{near}",
            node.word.span,
            "" if near else f"the instructions are {' '.join(known).upper()}",
        )
    _arguments(node, shape[0], end, escape=escape, may_be_json=shape[1])
    if node.keyword == "onbuild" and node.words:
        start = node.words.pop()
        node.child = _read(line, len(text) - len(start.text), escape, trigger=True)
    return node


def _arguments(node: Node, shape: str, offset: int, *, escape: str, may_be_json: bool) -> None:
    text = node.text
    if may_be_json and "[" in text[offset:]:
        # What does not match is no JSON, but the shell form or words.
        children = None
        with suppress(lalr.NoMatchError):
            children = lalr.parse(_EXEC[shape], text, offset)
        if children is not None and _is_json(text, children, offset):
            node.json = True
            _take(node, children)
            return
    if shape == "pairs":
        _pairs(node, offset, escape)
        return
    try:
        children = lalr.parse(shape, text, offset)
    except lalr.NoMatchError:
        # FROM with too many words: what they should have been is said where their number is checked.
        children = lalr.parse("list", text, offset)
    _take(node, children)


def _is_json(text: str, children: list[Any], offset: int) -> bool:
    """Say whether an array has no blanks but those of JSON (RFC 8259): the grammar takes more of them everywhere."""
    before = max((child[2] for child in children if child[0] != "array"), default=offset)
    start = text.index("[", before)
    return text.find("\v", start) < 0 and text.find("\f", start) < 0


def _take(node: Node, children: list[Any]) -> None:
    """Sort tokens and trees into flags and words."""
    text, line = node.text, node.line
    flags = []
    for child in children:
        if child[0] == "array":
            node.words += _strings(node, child[1])
            continue
        kind, start, end = child
        if kind == "FLAG":
            flags.append(_flag(text[start:end], line.span(start, end)))
        elif kind == "TEXT":
            # Wider blanks than those between words are trimmed too.
            stripped = text[start:end].lstrip(WIDE_BLANKS)
            node.words.append(Word(text=stripped, span=line.span(end - len(stripped), end)))
        else:
            node.words.append(Word(text=text[start:end], span=line.span(start, end)))
    node.flags = tuple(flags)


def _strings(node: Node, members: list[Any]) -> list[Word]:
    words = []
    for member in members:
        if member[0] != "STRING":
            raise Fault(
                "json-strings",
                "when using JSON array syntax, arrays must be comprised of strings only",
                node.line.span(member[1], member[2]) if len(member) == 3 else node.span,
                "put every argument in double quotes",
            )
        _, start, end = member
        words.append(Word(text=_unescaped(node.text[start + 1 : end - 1]), span=node.line.span(start, end)))
    return words


def _unescaped(text: str) -> str:
    """The characters that the inside of a JSON string stands for; what is no character becomes U+FFFD."""
    if "\\" in text:
        text = re.sub(_JSON_ESCAPE, lambda m: chr(int(m[1], 16)) if m[1] else _JSON_ESCAPES.get(m[2], m[2]), text)
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _flag(text: str, span: Span) -> Flag:
    plain = re.sub(_FLAG_QUOTING, _unquoted, text)
    name, equals, value = plain[2:].partition("=")
    return Flag(name=name, value=value if equals else None, text=text, span=span)


def _unquoted(match: re.Match[str]) -> str:
    if match[1] is not None:
        return match[1]
    inside = match[2] if match[2] is not None else match[3]
    return re.sub(r"\\([\s\S]?)", r"\1", inside)


def _pairs(node: Node, offset: int, escape: str) -> None:
    """Read `key=value` words, or the legacy form where the first word has no `=`."""
    text, line = node.text, node.line
    read = text
    if escape != "\\":
        # The grammar knows one escape character, which is that of flags in any case; the places stay the same.
        children = lalr.parse("shell", text, offset)
        start = children[-1][1] if children and children[-1][0] == "TEXT" else len(text)
        read = text[:start] + text[start:].translate(_SWAPPED)
    flags = []
    for child in lalr.parse("pairs", read, offset):
        if child[0] == "FLAG":
            flags.append(_flag(text[child[1] : child[2]], line.span(child[1], child[2])))
            continue
        start, end = (child[1][0][1], child[1][-1][2]) if child[0] == "pair" else (child[1], child[2])
        key, equals, value = text[start:end].partition("=")
        if not equals and node.keyword != "arg":
            if node.pairs:
                word = line.span(start, end)
                message = f"Syntax error - can't find = in {quote(key)}. Must be of the form: name=value"
                raise Fault("missing-equals", message, word, "quote a value that holds blanks")
            _legacy(node, offset)
            break
        middle = start + len(key)
        key_word = Word(text=key, span=line.span(start, middle))
        value_word = Word(text=value, span=line.span(middle + 1, end)) if equals else None
        node.pairs.append((key_word, value_word))
    node.flags = tuple(flags)


def _legacy(node: Node, offset: int) -> None:
    children = [child for child in lalr.parse("legacy", node.text, offset) if child[0] != "FLAG"]
    if len(children) < 2:
        raise Fault(
            "missing-value",
            f"{node.keyword.upper()} must have two arguments",
            node.span,
            f"write {node.keyword.upper()} name=value",
        )
    words = [Word(text=node.text[start:end], span=node.line.span(start, end)) for _, start, end in children]
    node.legacy = True
    node.pairs.append((words[0], words[1]))
