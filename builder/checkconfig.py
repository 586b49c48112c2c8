"""What a project wants a check to look at: `[tool.pybuild.check]` of pyproject.toml, `[check]` of .pybuild.toml.

Knows the keys and where they stand; the rules it knows by name only. Imported only where a check is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import Any

from builder.errors import ConfigError, UsageError
from grammar.diagnostics import Diagnostic, Position, Severity, Span
from grammar.lint.rules import RULES
from grammar.lint.selection import EVERYTHING, GROUPS, Selection
from grammar.record import Record, field
from grammar.text import nearest

OWN_FILE = ".pybuild.toml"
SHARED_FILE = "pyproject.toml"
KEYS = ("extend-select", "ignore", "per-file-ignores", "select", "severity")
SEVERITIES: Mapping[str, Severity | None] = {
    "error": Severity.ERROR,
    "warning": Severity.WARNING,
    "info": Severity.INFO,
    "off": None,
}

_RULES = tuple(rule.name for rule in RULES)


class CheckConfig(Record):
    """A project's wishes; `select` is None where there is none. `per_file` holds patterns of names and rules ignored.

    `directory` is where the file with the wishes lies; patterns are relative to it.
    """

    directory: Path | None = None
    select: frozenset[str] | None = None
    extend_select: frozenset[str] = field(default=frozenset())
    ignore: frozenset[str] = field(default=frozenset())
    severities: Mapping[str, Severity | None] = field(default=MappingProxyType({}))
    per_file: tuple[tuple[str, frozenset[str]], ...] = ()

    def selection(
        self,
        path: Path | None,
        *,
        select: Iterable[str] = (),
        ignore: Iterable[str] = (),
        default: Selection = EVERYTHING,
    ) -> Selection:
        """Return what is looked at in the Dockerfile `path`, None for one that is no file.

        `select` and `ignore` are the command's, whose word counts more; `default` is what nobody wishing means.
        """
        chosen, refused = frozenset(select), frozenset(ignore)
        wanted = chosen or ((default.select if self.select is None else self.select) | self.extend_select)
        ignored = self.ignore | self._ignored_in(path)
        severities = {name: value for name, value in self.severities.items() if value or name not in chosen}
        return Selection(select=wanted, ignore=(ignored - chosen) | refused, severities=severities)

    def _ignored_in(self, path: Path | None) -> frozenset[str]:
        if path is None or self.directory is None:
            return frozenset()
        names = [path.name]
        if path.is_relative_to(self.directory):
            names.append(path.relative_to(self.directory).as_posix())
        matching = [rules for pattern, rules in self.per_file if any(fnmatchcase(name, pattern) for name in names)]
        return frozenset[str]().union(*matching)


def load(start: Path) -> CheckConfig:
    """Return the wishes of the nearest file that has some, in `start` or a directory above it; ConfigError.

    Of two files in one directory `.pybuild.toml` counts.
    """
    for directory in (start, *start.parents):
        for name in (OWN_FILE, SHARED_FILE):
            path = directory / name
            try:
                data = path.read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                message = f"cannot read {path}: {error.strerror}"
                raise UsageError(message, hint="look at its permissions") from error
            # Most projects have a pyproject.toml, and few of them have wishes for this.
            if name == OWN_FILE or b"pybuild" in data:
                found = _Reader(path, data).read()
                if found is not None:
                    return found
    return CheckConfig()


def parse_names(texts: Iterable[str], option: str) -> frozenset[str]:
    """Return the rules and groups that `--select A,B` options name; UsageError for one that does not exist."""
    names = frozenset(name.strip() for text in texts for name in text.split(",") if name.strip())
    for name in sorted(names):
        if name not in _RULES and name not in GROUPS:
            raise UsageError(f"{option}: there is no rule called {name}{_meant(name)}", hint=_KNOWN)
    return names


_KNOWN = f"`pybuild check --explain all` lists the rules; the groups are {', '.join(GROUPS)}"


def _meant(name: str) -> str:
    known = (*_RULES, *GROUPS)
    near = nearest(name, known) or next((one for one in known if one.lower() == name.lower()), "")
    return f" (did you mean {near}?)" if near else ""


class _Reader:
    """Reads one file; what it gets wrong is told with its place."""

    def __init__(self, path: Path, data: bytes) -> None:
        self._path = path
        self._text = data.decode("utf-8", "replace")
        self._section = "check" if path.name == OWN_FILE else "tool.pybuild.check"

    def read(self) -> CheckConfig | None:
        """Return the wishes; None where there is no section with any. ConfigError."""
        import tomllib  # noqa: PLC0415 - only for projects that have such a file

        try:
            table: Any = tomllib.loads(self._text)
        except tomllib.TOMLDecodeError as error:
            raise self._malformed(str(error)) from error
        *outer, last = self._section.split(".")
        for name in outer:
            table = table.get(name, {}) if isinstance(table, dict) else {}
        if not isinstance(table, dict) or last not in table:
            return None
        section = table[last]
        if not isinstance(section, dict):
            raise self._error(f"{self._section} is not a table", last, f"write [{self._section}]")
        return self._config(section)

    def _config(self, section: dict[str, Any]) -> CheckConfig:
        for key in section:
            if key not in KEYS:
                near = nearest(key, KEYS)
                meant = f" (did you mean {near}?)" if near else ""
                raise self._error(f"unknown key {key}{meant}", key, f"the keys are {', '.join(KEYS)}")
        return CheckConfig(
            directory=self._path.parent,
            select=self._names(section, "select") if "select" in section else None,
            extend_select=self._names(section, "extend-select"),
            ignore=self._names(section, "ignore"),
            severities=self._severities(section.get("severity", {})),
            per_file=self._per_file(section.get("per-file-ignores", {})),
        )

    def _names(self, table: dict[str, Any], key: str) -> frozenset[str]:
        names = table.get(key, [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise self._error(f"{key} is not a list of rules", key, f'write {key} = ["RuleName"]')
        for name in names:
            self._known(name, (*_RULES, *GROUPS))
        return frozenset(names)

    def _known(self, name: str, known: Iterable[str]) -> None:
        if name not in known:
            raise self._error(f"there is no rule called {name}{_meant(name)}", name, _KNOWN)

    def _severities(self, table: Any) -> dict[str, Severity | None]:
        hint = f"severities are {', '.join(SEVERITIES)}"
        if not isinstance(table, dict):
            raise self._error("severity is not a table", "severity", 'write severity = { RuleName = "error" }')
        found = {}
        for name, value in table.items():
            if name in GROUPS:
                raise self._error(f"{name} is a group of rules", name, "name the rules one by one")
            self._known(name, _RULES)
            if not isinstance(value, str) or value not in SEVERITIES:
                raise self._error(f"the severity of {name} is none", name, hint)
            found[name] = SEVERITIES[value]
        return found

    def _per_file(self, table: Any) -> tuple[tuple[str, frozenset[str]], ...]:
        if not isinstance(table, dict):
            hint = 'write per-file-ignores = { "Dockerfile.dev" = ["RuleName"] }'
            raise self._error("per-file-ignores is not a table", "per-file-ignores", hint)
        return tuple((pattern, self._names(table, pattern)) for pattern in table)

    def _malformed(self, text: str) -> ConfigError:
        message, _, place = text.rpartition(" (at ")
        numbers = re.fullmatch(r"line (\d+), column (\d+)\)", place)
        span = None
        if numbers or place == "end of document)":
            lines = self._text.rstrip().split("\n")
            at = Position(*(map(int, numbers.groups()) if numbers else (len(lines), len(lines[-1]) + 1)))
            span = Span(at, at._replace(column=at.column + 1))
        return self._raise(message or text, span, "see toml.io for the syntax")

    def _error(self, message: str, word: str, hint: str) -> ConfigError:
        """The error about a key or a string, located where it first stands behind the section's header."""
        header = re.search(rf"^\s*\[\s*{re.escape(self._section)}\b", self._text, re.MULTILINE)
        found = re.compile(rf"(?<![\w-]){re.escape(word)}(?![\w-])").search(self._text, header.end() if header else 0)
        if found is None:  # written with escapes
            return self._raise(message, None, hint)
        line = self._text.count("\n", 0, found.start()) + 1
        column = found.start() - (self._text.rfind("\n", 0, found.start()) + 1) + 1
        return self._raise(message, Span(Position(line, column), Position(line, column + len(word))), hint)

    def _raise(self, message: str, span: Span | None, hint: str) -> ConfigError:
        diagnostic = Diagnostic(code="config", message=message, span=span, hint=hint)
        return ConfigError((diagnostic,), source=self._text, name=str(self._path))
