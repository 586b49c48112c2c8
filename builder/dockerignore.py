"""What an ignore file leaves out of a build context: its patterns, and which of them hides a path.

Patterns mean what they mean to BuildKit (dockerignore syntax over moby/patternmatcher), its oddities included. The file
system is not known here, but for the choice of the ignore file.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from builder.errors import BuildError
from builder.glob import BadPattern, check

_ESCAPED = ".+()|{}$"
_CLASSES = "dDwWsS"

Match = Callable[[str], object]
State = tuple[bool, ...]
"""Which patterns matched a path or one of its parents, in the order of the patterns; () for the root."""


class Rule(NamedTuple):
    """One pattern as written: `text` in line `line` (1-based) of the ignore file."""

    line: int
    text: str


class IgnoreError(BuildError):
    """A pattern that cannot be used; the message begins with where it stands: file, line and column (1-based)."""

    def __init__(self, where: str, rule: Rule, column: int, what: str, *, hint: str) -> None:
        super().__init__(f"{where}:{rule.line}:{column}: {what}: {rule.text.strip()}", hint=hint)
        self.rule = rule
        self.column = column
        self.what = what


class Pattern:
    """One cleaned pattern; `exclusion` is an exception ("!"), `rule` where it was written."""

    __slots__ = ("exclusion", "literal", "matches", "name_matches", "regex", "rule", "text")

    def __init__(self, text: str, *, exclusion: bool, rule: Rule) -> None:
        self.text = text
        self.exclusion = exclusion
        self.rule = rule
        self.literal = False
        self.regex = ""
        self.matches: Match = self._compile()
        self.name_matches = self._by_name()

    def _compile(self) -> Match:
        """Choose how a path is compared, as patternmatcher does: the shape of the pattern decides."""
        regex, shape = _translate(self.text)
        self.regex = regex
        if shape == "exact":
            self.literal = True
            return self.text.__eq__
        if shape == "prefix":
            prefix = self.text[:-2]
            self.regex = re.escape(prefix) + ".*"
            return lambda path: path.startswith(prefix)
        if shape == "suffix":
            suffix = self.text[2:]
            whole = suffix[1:] if suffix.startswith("/") else None
            self.regex = f"(?:.*/)?{re.escape(whole)}" if whole is not None else f".*{re.escape(suffix)}"
            return lambda path: path.endswith(suffix) or path == whole
        try:
            return re.compile(regex, re.DOTALL).fullmatch
        except re.error as error:
            raise BadPattern(self.text, error.pos or 0) from error

    def _by_name(self) -> str | None:
        """Return the regular expression on the last name alone, if the rest of the path does not matter."""
        tail = self.text[3:]
        if not self.text.startswith("**/") or "/" in tail or "**" in tail or "[" in tail or "\\" in tail:
            return None
        return _translate(tail)[0]

    def may_match_below(self, directory: str) -> bool:
        """Say whether the pattern could match a path below `directory`; True when in doubt."""
        prefix = re.split(r"[*?\[\\^]", self.text, maxsplit=1)[0]
        if prefix == self.text:
            return self.text.startswith(directory + "/")
        prefix = prefix.rpartition("/")[0]
        return not prefix or f"{prefix}/".startswith(directory + "/") or directory.startswith(prefix + "/")


class PatternMatcher:
    """Several patterns in order: the last one that matches a path or a parent of it decides."""

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        self.patterns = tuple(patterns)
        self.has_exceptions = any(pattern.exclusion for pattern in patterns)
        self._filters: dict[tuple[int, ...], Match] = {}

    @classmethod
    def of(cls, texts: Iterable[str], *, where: str) -> PatternMatcher:
        """Compile `texts` (`!` in front makes an exception), found at `where`; IgnoreError for a malformed one."""
        patterns = []
        for number, text in enumerate(texts, 1):
            pattern = _pattern(text, Rule(number, text), where)
            if pattern is not None:
                patterns.append(pattern)
        return cls(patterns)

    def match(self, path: str, parent: State) -> tuple[bool, State]:
        """Return whether `path` is matched, and the state its children are asked with.

        As in the reference, a pattern that could not change the outcome is not looked at, so it counts as not matching
        for what is below.
        """
        state = []
        matched = False
        for index, pattern in enumerate(self.patterns):
            hit = bool(parent) and parent[index]
            if not hit and pattern.exclusion == matched:
                hit = bool(pattern.matches(path))
            state.append(hit)
            if hit:
                matched = not pattern.exclusion
        return matched, tuple(state)

    def trace(self, path: str) -> Pattern | None:
        """Return the pattern that decides about `path`, None if none matches it."""
        state: State = ()
        parts = path.split("/")
        for count in range(1, len(parts) + 1):
            _matched, state = self.match("/".join(parts[:count]), state)
        return next((pattern for pattern, hit in zip(self.patterns[::-1], state[::-1], strict=True) if hit), None)

    def outcome(self, state: State) -> bool:
        """Return what becomes of a path that no pattern matches by itself, below a directory with `state`."""
        for pattern, hit in zip(self.patterns[::-1], state[::-1], strict=False):
            if hit:
                return not pattern.exclusion
        return False

    def may_except_below(self, directory: str) -> bool:
        """Say whether an exception could bring back something below `directory`."""
        return any(pattern.exclusion and pattern.may_match_below(directory) for pattern in self.patterns)

    def may_match_below(self, directory: str) -> bool:
        """Say whether any pattern could match below `directory`."""
        return any(pattern.may_match_below(directory) for pattern in self.patterns)

    def filter(self, directory: str) -> tuple[frozenset[str], Match | None, Match | None]:
        """Return what finds, fast, the names in `directory` that any pattern could match by itself.

        The names of literal patterns, a test for a name, and a test for a whole path; a name that fails all three is
        matched by no pattern.
        """
        literals = []
        by_name = []
        by_path = []
        for index, pattern in enumerate(self.patterns):
            if pattern.literal:
                parent, _, name = pattern.text.rpartition("/")
                if parent == directory:
                    literals.append(name)
            elif pattern.name_matches is not None:
                by_name.append(index)
            elif not directory or pattern.may_match_below(directory):
                by_path.append(index)
        return frozenset(literals), self._any(by_name, by_name=True), self._any(by_path, by_name=False)

    def _any(self, indices: list[int], *, by_name: bool) -> Match | None:
        if not indices:
            return None
        key = (int(by_name), *indices)
        found = self._filters.get(key)
        if found is None:
            chosen = (self.patterns[index] for index in indices)
            parts = [(pattern.name_matches if by_name else pattern.regex) or "" for pattern in chosen]
            found = self._filters[key] = re.compile("|".join(f"(?:{part})" for part in parts), re.DOTALL).fullmatch
        return found


class IgnoreFile(PatternMatcher):
    """The compiled patterns of one ignore file; without patterns it hides nothing.

    `name` is what messages call it, `digest` the SHA-256 of its text in hexadecimal.
    """

    def __init__(self, data: bytes = b"", *, name: str = ".dockerignore") -> None:
        """Compile `data`; IgnoreError with line and column for a malformed pattern."""
        self.name = name
        self.digest = hashlib.sha256(data).hexdigest()
        patterns = []
        text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
        for number, line in enumerate(text.split("\n"), 1):
            if line.startswith("#"):
                continue
            pattern = _pattern(_clean_line(line), Rule(number, line.rstrip("\r")), name)
            if pattern is not None:
                patterns.append(pattern)
        super().__init__(patterns)

    def explain(self, path: bytes) -> Rule | None:
        """Return the rule that hides `path` (an in-context path), None if it is not hidden."""
        pattern = self.trace(os.fsdecode(path))
        return None if pattern is None or pattern.exclusion else pattern.rule


def find_ignore_file(context: Path, dockerfile: Path | None) -> Path | None:
    """Return the ignore file that governs `context` when it is built with `dockerfile`, None if there is none.

    `<dockerfile>.dockerignore` beside the Dockerfile wins over `.dockerignore` in the context. A named context, and a
    build whose Dockerfile is no file, have only that.
    """
    if dockerfile is not None and (own := dockerfile.with_name(dockerfile.name + ".dockerignore")).is_file():
        return own
    common = context / ".dockerignore"
    return common if common.is_file() else None


def _clean_line(line: str) -> str:
    """Take a line as the reference's reader of ignore files does: trimmed, path-cleaned, rooted at the context."""
    line = line.strip()
    mark = "!" if line.startswith("!") else ""
    line = line.removeprefix("!").strip() if mark else line
    if line:
        line = _clean(line)
        if len(line) > 1:
            line = line.removeprefix("/")
    return mark + line


def _pattern(text: str, rule: Rule, where: str) -> Pattern | None:
    """Take `text` as patternmatcher does; None for an empty pattern."""
    text = text.strip()
    if not text:
        return None
    text = _clean(text)
    exclusion = text.startswith("!")
    if exclusion:
        if text == "!":
            raise _malformed(rule, where, max(rule.text.find("!"), 0), "illegal exclusion pattern")
        text = _clean(text[1:])
    try:
        check(text)
        return Pattern(text, exclusion=exclusion, rule=rule)
    except BadPattern as error:
        column = max(rule.text.find(error.pattern), 0) + error.at
        raise _malformed(rule, where, column) from error


def _malformed(rule: Rule, where: str, column: int, what: str = "syntax error in pattern") -> IgnoreError:
    hint = "a [ begins a character class and needs its ]; write \\[ for the character itself"
    if rule.text.strip() == "!":
        hint = "write the pattern to bring back behind the !"
    return IgnoreError(where, rule, column + 1, what, hint=hint)


def _clean(path: str) -> str:
    """Return `path` as Go's filepath.Clean does; normpath differs only in keeping a leading double slash."""
    cleaned = posixpath.normpath(path)
    return cleaned[1:] if cleaned.startswith("//") else cleaned


@lru_cache(maxsize=1024)
def _translate(text: str) -> tuple[str, str]:
    """Return the regular expression of `text` and its shape: exact, prefix ("a/**"), suffix ("**/a") or regexp.

    Classes are handed to the regular expression as they are written, and stars inside them are still stars: so does the
    reference.
    """
    out: list[str] = []
    shape = "exact"
    at = 0
    first = True
    while at < len(text):
        char = text[at]
        at += 1
        if text.startswith("**", at - 1):
            at += 1
            at += text[at : at + 1] == "/"
            if at < len(text):
                out.append("(?:.*/)?")
                shape = "regexp"
            elif shape == "exact":
                shape = "prefix"
            else:
                out.append(".*")
                shape = "regexp"
            if first:
                shape = "suffix"
        elif char in "*?":
            # In a class the bracket of this is one of its characters, and its end that of the class.
            out.append(_bracket("[", out) + ("^/]*" if char == "*" else "^/]"))
            shape = "regexp"
        elif char == "\\":
            if at == len(text):
                out.append("\\\\")
                continue
            following = text[at]
            at += 1
            if following.isalnum() and following.isascii() and following not in _CLASSES:
                raise BadPattern(text, at - 2)
            out.append(f"\\{following}" if following.isascii() else following)
            shape = "regexp"
        elif char in "[]":
            out.append(_bracket(char, out))
            shape = "regexp"
        else:
            out.append(f"\\{char}" if char in _ESCAPED else char)
        first = False
    return "".join(out), shape


def _bracket(char: str, out: list[str]) -> str:
    # Python reads a bracket inside a class, or a "]" outside one, as Go does, but warns of the first.
    if char == "[" and "".join(out).rfind("[") > "".join(out).rfind("]"):
        return "\\["
    return char
