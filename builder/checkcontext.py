"""What rules ask about the build context: texts of its files, and patterns of its ignore file that match nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from builder.context import LocalContext
from builder.dockerignore import IgnoreFile, Pattern, PatternMatcher
from builder.errors import BuildError
from grammar.diagnostics import Position, Span
from grammar.text import nearest
from layerstore.entry import Kind

_MOST_TEXT = 1 << 20
_MOST_FILES = 100_000
"""So many files are looked at; in a larger context nothing is said of patterns."""

# What comes and goes: version control, editors, systems, and what tools and tests make.
_TRANSIENT = (
    ".*", "*.bak", "*.class", "*.egg", "*.egg-info", "*.env", "*.key", "*.local", "*.log", "*.md",
    "*.o", "*.orig", "*.pem",
    "*.pid", "*.py[cdo]", "*.pyc", "*.pyo", "*.pyd", "*.rlib", "*.seed", "*.so", "*.sqlite*", "*.sw?", "*.swp", "*.swo",
    "*.test", "*.tgz", "*.tmp", "*.tsbuildinfo", "*.zip", "*~", "__pycache__", "__tests__", "bower_components", "build",
    "cache", "charts", "compose.y*ml", "compose*.y*ml", "coverage", "coverage.*", "cypress", "dist", "docker-compose*",
    "dockerfile*", "docs", "env", "htmlcov", "jspm_packages", "license*", "log", "logs", "makefile", "*.retry",
    "node_modules", "npm-debug.log*", "out", "pnpm-debug.log*", "readme*", "release", "secrets*", "storybook-static",
    "target", "temp", "terraform*", "test-results", "tmp", "thumbs.db", "vendor", "venv", "yarn-debug.log*",
    "yarn-error.log*", "values.dev.yaml", "bin", "obj", "*.dbmdl", "*.jfm", "*.*proj.user", "npm-debug.log",
)  # fmt: skip


class ContextView:
    """The context as rules see it: without what is ignored, and without errors for what cannot be read."""

    def __init__(self, context: LocalContext) -> None:
        self._context = context

    def read(self, path: str) -> str | None:
        """Return the text of a file; None if there is no such file, or none of that size."""
        try:
            data = self._context.read(os.fsencode(path), limit=_MOST_TEXT)
        except BuildError:
            return None
        return None if data is None else data.decode("utf-8", "replace")

    def is_directory(self, path: str) -> bool:
        """Say whether a path, "" for the root, is a directory."""
        if not path:
            return True
        try:
            entry = self._context.lstat(os.fsencode(path))
        except BuildError:
            return False
        return entry is not None and entry.kind is Kind.DIR


def unused_patterns(ignore: IgnoreFile, root: Path) -> Iterator[tuple[Span, str, str]]:
    """Yield the place of each pattern that matches nothing below `root`, the pattern, and what may be wrong with it.

    A pattern for what comes and goes is left out, unless it would match if it looked deeper.
    """
    unused = dict.fromkeys(ignore.patterns)
    deeper = {pattern: one for pattern in ignore.patterns if (one := _deeper(pattern)) is not None}
    found: dict[Pattern, str] = {}
    tops: list[str] = []
    for count, path in enumerate(_walk(root)):
        if count >= _MOST_FILES:
            return
        if "/" not in path:
            tops.append(path)
        for pattern in [one for one in unused if one.matches(path)]:
            del unused[pattern]
        if not unused:
            return
        for pattern, one in deeper.items():
            if pattern in unused and pattern not in found and one.matches(path):
                found[pattern] = path
    generated = _generated(root)
    for pattern in unused:
        why = ""
        if pattern in found:
            why = f" in the root of the context; **/{pattern.text} would match {found[pattern]}"
        elif " #" in pattern.rule.text:
            why = ": a comment needs a line of its own"
        elif _is_transient(pattern.text, generated):
            continue
        elif (near := nearest(pattern.text, tops)) and len(pattern.text) > 3:
            why = f" (did you mean {near}?)"
        text = pattern.rule.text
        start = len(text) - len(text.lstrip()) + 1
        yield (
            Span(Position(pattern.rule.line, start), Position(pattern.rule.line, len(text.rstrip()) + 1)),
            text.strip(),
            why or " in the build context",
        )


def _walk(root: Path) -> Iterator[str]:
    todo = [""]
    while todo:
        directory = todo.pop()
        try:
            with os.scandir(root / directory) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError:
            continue  # a build says so if it needs it
        for entry in entries:
            path = f"{directory}/{entry.name}" if directory else entry.name
            yield path
            if entry.is_dir(follow_symlinks=False):
                todo.append(path)


def _deeper(pattern: Pattern) -> Pattern | None:
    """The pattern that looks for the same name in every directory."""
    if "/" in pattern.text or pattern.text.startswith("**"):
        return None
    return PatternMatcher.of([f"**/{pattern.text}"], where="").patterns[0]


def _generated(root: Path) -> frozenset[str]:
    """The patterns that git ignores, which are for what is made."""
    try:
        text = (root / ".gitignore").read_text("utf-8", "replace")
    except OSError:
        return frozenset()
    return frozenset(_bare(line) for line in text.splitlines())


def _bare(text: str) -> str:
    return re.sub(r"^(?:!|\*\*/|/)+|(?:/\*\*?|/)+$", "", text.strip())


def _is_transient(text: str, generated: frozenset[str]) -> bool:
    bare = _bare(text)
    parts = bare.split("/")
    return bool(generated & {bare, parts[0], parts[-1]}) or any(
        fnmatchcase(part.lower(), one) for part in parts for one in _TRANSIENT
    )
