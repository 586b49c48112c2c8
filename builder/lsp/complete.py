"""What could be written at a place: instructions, flags and their values, stages, variables, paths, directives."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import NamedTuple

from builder.lsp.context import Listing
from builder.lsp.document import Document, Spot
from builder.lsp.symbols import Variable
from builder.lsp.words import describe_stage, describe_variable, option_page, page
from grammar import Position, Span
from grammar.flags import FLAGS
from grammar.manual import (
    AUTOMATIC_ARGS,
    DIRECTIVES,
    INSTRUCTIONS,
    MOUNT_KEYS,
    MOUNT_TYPE_KEYS,
    MOUNT_TYPES,
    SIGNALS,
    Option,
)
from grammar.mount import ALIASES
from grammar.text import BLANKS

_KEYWORD = re.compile(r"[A-Za-z]*")
_FLAG = re.compile(r"""--(?:[^\s"'\\]|\\[\s\S]?|"(?:[^"\\]|\\[\s\S]?)*(?:"|\Z)|'(?:[^'\\]|\\[\s\S]?)*(?:'|\Z))*""")
_VARIABLE = re.compile(r"(?P<escapes>[\\`]*)\$(?P<brace>\{?)(?P<name>[A-Za-z_]\w*|)\Z")
_DIRECTIVE = re.compile(r"#\s*(?P<key>\w*)\Z")
_DIRECTIVE_VALUE = re.compile(r"#\s*(?P<key>\w+)\s*=\s*(?P<value>.*)\Z")
_RULES = re.compile(r"(?:skip|experimental)=(?:[^;]*,)?\s*(?P<rule>\w*)\Z")
_NOT_IN_ONBUILD = ("from", "maintainer", "onbuild")


class Kind(Enum):
    """What a suggestion is, for its icon."""

    KEYWORD = "keyword"
    FLAG = "flag"
    VALUE = "value"
    STAGE = "stage"
    VARIABLE = "variable"
    FILE = "file"
    DIRECTORY = "directory"
    RULE = "rule"


class Item(NamedTuple):
    """One suggestion; `text` takes the place of the span."""

    label: str
    kind: Kind
    text: str
    detail: str = ""
    help: str = ""


class Suggestions(NamedTuple):
    """What could stand in `span`, which ends where the cursor is."""

    span: Span
    items: tuple[Item, ...]


def complete(document: Document, position: Position, listing: Listing) -> Suggestions:
    """Return what could be written at a place; `listing` says what is in a directory of the context."""
    spot = document.spot(position)
    if spot is not None:
        return _Completion(document, position, listing, spot).suggestions()
    before = document.line(position.line)[: position.column - 1]
    found = document.piece_at(position.line)
    if found is not None and position.line > found[1].last:
        index, piece = found
        node = piece.node
        if node is not None and any(heredoc.expand for heredoc in node.heredocs):
            return _variables(document, position, before, document.symbols.visible[index].values())
        return _nothing(position)
    if before.lstrip(BLANKS).startswith("#"):
        return _directives(document, position, before)
    return _keywords(document, position, before.lstrip(BLANKS), INSTRUCTIONS)


def _nothing(position: Position) -> Suggestions:
    return Suggestions(Span(position, position), ())


def _behind(position: Position, typed: str, items: Iterable[Item]) -> Suggestions:
    """Suggestions for a word of which `typed` is there already, right before the cursor."""
    start = position._replace(column=max(position.column - len(typed), 1))
    return Suggestions(Span(start, position), tuple(items))


def _keywords(document: Document, position: Position, typed: str, names: Iterable[str]) -> Suggestions:
    if not _KEYWORD.fullmatch(typed):
        return _nothing(position)
    lower = _writes_lower(document, typed)
    items = []
    for name in names:
        text = name if lower else name.upper()
        items.append(Item(text, Kind.KEYWORD, f"{text} ", INSTRUCTIONS[name].summary, page(name)))
    return _behind(position, typed, items)


def _writes_lower(document: Document, typed: str) -> bool:
    """Whether keywords are in lower case: as typed, else as most of the file has them."""
    if typed:
        return typed.islower()
    words = [piece.node.word.text for piece in document.draft.pieces if piece.node is not None]
    return 2 * sum(word.islower() for word in words) > len(words)


def _directives(document: Document, position: Position, before: str) -> Suggestions:
    above = [document.line(number) for number in range(1, position.line)]
    at_top = all(line.lstrip(BLANKS).startswith("#") for line in above)
    if at_top and (match := _DIRECTIVE.search(before)):
        items = (Item(name, Kind.KEYWORD, f"{name}=", option.value, option.text) for name, option in DIRECTIVES.items())
        return _behind(position, match["key"], items)
    match = _DIRECTIVE_VALUE.search(before)
    if match is None or match["key"].lower() not in DIRECTIVES or not (at_top or match["key"].lower() == "check"):
        return _nothing(position)
    if match["key"].lower() == "check" and (rule := _RULES.search(match["value"])):
        return _behind(position, rule["rule"], _rules())
    typed = match["value"].rpartition(";")[2] if match["key"].lower() == "check" else match["value"]
    values = DIRECTIVES[match["key"].lower()].values
    return _behind(position, typed, (Item(one, Kind.VALUE, one) for one in values))


def _rules() -> Iterator[Item]:
    from grammar.lint.rules import RULES  # noqa: PLC0415 - few completions are about rules

    for rule in RULES:
        yield Item(rule.name, Kind.RULE, rule.name, rule.description, rule.page)


def _variables(document: Document, position: Position, before: str, visible: Iterable[Variable]) -> Suggestions:
    """Variables, if a `$` is what was begun."""
    match = _VARIABLE.search(before)
    if match is None or len(match["escapes"]) % 2:
        return _nothing(position)
    after = document.line(position.line)[position.column - 1 :]
    close = "}" if match["brace"] and not after.startswith("}") else ""
    items = (
        Item(one.name, Kind.VARIABLE, one.name + close, one.known or "", describe_variable(one))
        for one in sorted(visible, key=lambda one: one.name)
    )
    return _behind(position, match["name"], items)


class _Completion:
    """What could stand at one place of an instruction."""

    def __init__(self, document: Document, position: Position, listing: Listing, spot: Spot) -> None:
        self.document = document
        self.position = position
        self.listing = listing
        self.spot = spot
        self.before = spot.piece.line.text[: spot.offset]
        self.visible = document.symbols.visible[spot.which]
        self.stage = document.symbols.stage_of[spot.which]

    def suggestions(self) -> Suggestions:
        """The suggestions."""
        text = self.before.lstrip(BLANKS)
        word = text.split(maxsplit=1)[0] if text.strip(BLANKS) else ""
        if word == text:
            return _keywords(self.document, self.position, text, INSTRUCTIONS)
        keyword = word.lower()
        rest = text[len(word) :]
        if keyword == "onbuild":
            text = rest.lstrip(BLANKS)
            word = text.split(maxsplit=1)[0] if text else ""
            if word == text:
                names = (name for name in INSTRUCTIONS if name not in _NOT_IN_ONBUILD)
                return _keywords(self.document, self.position, text, names)
            keyword = word.lower()
            rest = text[len(word) :]
        return self._arguments(keyword, rest)

    def _arguments(self, keyword: str, rest: str) -> Suggestions:
        used: list[str] = []
        rest = rest.lstrip(BLANKS)
        while rest.startswith("-"):
            match = _FLAG.match(rest)
            if match is None or match.end() == len(rest):
                return self._flag(keyword, rest, used)
            used.append(match[0][2:].partition("=")[0])
            rest = rest[match.end() :].lstrip(BLANKS)
        found = _variables(self.document, self.position, self.before, self._visible(keyword))
        if found.items:
            return found
        words = re.split(r"[\t\v\f\r ]+", rest)
        return self._words(keyword, words, used)

    def _visible(self, keyword: str) -> Iterable[Variable]:
        if keyword == "from":
            # Only what stands above the first FROM counts.
            return self._globals()
        if keyword in ("cmd", "entrypoint", "healthcheck"):
            return [one for one in self.visible.values() if one.kind == "ENV"]
        return self.visible.values()

    def _globals(self) -> list[Variable]:
        symbols = self.document.symbols
        first = next((index for index, stage in enumerate(symbols.stage_of) if stage >= 0), len(symbols.stage_of))
        return list(symbols.visible[first].values()) if first < len(symbols.visible) else list(self.visible.values())

    # -- flags --------------------------------------------------------------------------------------------------------

    def _flag(self, keyword: str, typed: str, used: list[str]) -> Suggestions:
        known = FLAGS.get(keyword, {})
        name, equals, value = typed.lstrip("-").partition("=")
        if not equals:
            items = [
                self._named_flag(keyword, one) for one, kind in known.items() if kind == "values" or one not in used
            ]
            return _behind(self.position, typed, items)
        if name not in known:
            return _nothing(self.position)
        variables = _variables(self.document, self.position, self.before, self._visible(keyword))
        if name == "mount":
            return self._mount(value) if not variables.items else variables
        if name == "from":
            return _behind(self.position, value, self._stages())
        if variables.items and not value.endswith("$"):
            return variables
        values = INSTRUCTIONS[keyword].flags[name].values
        if known[name] == "switch":
            values = ("true", "false")
        items = [Item(one, Kind.VALUE, one) for one in values if one.startswith(value)]
        return _behind(self.position, value, items) if items else variables

    def _named_flag(self, keyword: str, name: str) -> Item:
        option = INSTRUCTIONS[keyword].flags[name]
        takes = FLAGS[keyword][name] != "switch"
        text = f"--{name}=" if takes else f"--{name}"
        return Item(f"--{name}", Kind.FLAG, text, option.value, option_page(f"--{name}", option))

    def _mount(self, value: str) -> Suggestions:
        """A key of `--mount`, or the value of one."""
        fields = value.lstrip("\"'").split(",")
        key, equals, typed = fields[-1].partition("=")
        given = dict(self._field(field) for field in fields[:-1])
        kind = given.get("type", "" if not given else "bind")
        if not equals:
            names: Iterable[str] = MOUNT_TYPE_KEYS.get(kind, ())
            names = [name for name in names if name not in given]
            if "type" not in given:
                names = ["type", *names]
            return _behind(self.position, key, (self._mount_key(name) for name in names))
        name = ALIASES.get(key.lower(), key.lower())
        if name == "from":
            return _behind(self.position, typed, self._stages())
        if name == "source" and kind in ("bind", "") and "from" not in given:
            return self._paths(typed)
        option = MOUNT_KEYS.get(name, Option("", ""))
        items = (Item(one, Kind.VALUE, one, MOUNT_TYPES.get(one, "")) for one in option.values)
        return _behind(self.position, typed, items)

    def _field(self, text: str) -> tuple[str, str]:
        key, _, value = text.partition("=")
        return ALIASES.get(key.lower(), key.lower()), value

    def _mount_key(self, name: str) -> Item:
        option = MOUNT_KEYS[name]
        takes = bool(option.value)
        return Item(name, Kind.FLAG, f"{name}=" if takes else name, option.value, option_page(name, option))

    def _stages(self) -> Iterator[Item]:
        """The stages above this one."""
        for stage in self.document.symbols.stages[: max(self.stage, 0)]:
            if stage.name:
                yield Item(stage.name, Kind.STAGE, stage.name, f"FROM {stage.image}", describe_stage(stage))

    # -- words --------------------------------------------------------------------------------------------------------

    def _words(self, keyword: str, words: list[str], used: list[str]) -> Suggestions:
        typed = words[-1]
        match keyword:
            case "from":
                return self._from(words)
            case "copy" | "add" if "from" not in used:
                return self._paths(typed.lstrip('["'))
            case "arg" if "=" not in typed and self.stage >= 0:
                return _behind(self.position, typed, self._outer_args())
            case "healthcheck" if len(words) == 1:
                return _behind(self.position, typed, self._values("CMD ", "NONE"))
            case "stopsignal" if len(words) == 1:
                return _behind(self.position, typed, self._values(*SIGNALS))
            case "shell" if not typed:
                return _behind(
                    self.position, typed, self._values('["/bin/sh", "-c"]', '["/bin/bash", "-eo", "pipefail", "-c"]')
                )
        return _nothing(self.position)

    def _values(self, *values: str) -> Iterator[Item]:
        for value in values:
            yield Item(value.rstrip(), Kind.VALUE, value)

    def _from(self, words: list[str]) -> Suggestions:
        if len(words) == 1:
            items = [*self._stages(), Item("scratch", Kind.VALUE, "scratch", "an empty image")]
            return _behind(self.position, words[-1], items)
        if len(words) == 2:
            return _behind(self.position, words[-1], self._values("as " if words[-1].islower() else "AS "))
        return _nothing(self.position)

    def _outer_args(self) -> Iterator[Item]:
        for one in self._globals():
            detail = AUTOMATIC_ARGS.get(one.name, "") if one.kind == "automatic" else one.value or ""
            yield Item(one.name, Kind.VARIABLE, one.name, detail, describe_variable(one))

    def _paths(self, typed: str) -> Suggestions:
        """Files and directories of the context whose path begins as typed."""
        folder, _, name = typed.rpartition("/")
        parts = [part for part in folder.split("/") if part not in ("", ".")]
        if ".." in parts or "$" in folder:
            return _nothing(self.position)
        items = []
        for entry, is_directory in self.listing("/".join(parts)):
            kind = Kind.DIRECTORY if is_directory else Kind.FILE
            text = f"{entry}/" if is_directory else entry
            items.append(Item(text, kind, text))
        return _behind(self.position, name, items)
