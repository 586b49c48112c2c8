"""What `pybuild check` prints: the report for people, as BuildKit's JSON, for GitHub, and as SARIF."""

from __future__ import annotations

import base64
import json
import os
from typing import TYPE_CHECKING, Any

import grammar
from builder.build import BuildOptions
from builder.check import Report
from builder.errors import LocatedError
from builder.version import VERSION
from grammar.diagnostics import Diagnostic, Severity, Span

if TYPE_CHECKING:
    from grammar.lint.rule import OtherFile, Violation

FORMATS = ("text", "json", "github", "sarif")
_SARIF = "https://json.schemastore.org/sarif-2.1.0.json"
_GITHUB = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}
_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}


def present(report: Report, options: BuildOptions, form: str) -> str:
    """Return the report in the form of that name, one of FORMATS."""
    match form:
        case "text":
            return as_text(report, options)
        case "github":
            return as_github(report, options.name)
        case "json":
            return json.dumps(as_json(report, options), indent=2) + "\n"
        case "sarif":
            return json.dumps(as_sarif(report, options.name), indent=2) + "\n"
    raise AssertionError(f"BUG: no form is called {form}")


def as_text(report: Report, options: BuildOptions) -> str:
    """Return the warnings for people: the rule and its page, the message, the lines."""
    count = len(report.violations)
    if not count:
        return "" if report.error else "Check complete, no warnings found.\n"
    source = options.dockerfile.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    parts = [f"Check complete, {count} warning{' has' if count == 1 else 's have'} been found!\n"]
    for one in report.violations:
        head = f"{one.severity.name}: {one.rule.name} - {one.rule.reference}\n{_printable(one.message)}\n"
        name, text = (one.file.name, one.file.text) if one.file else (options.name, source)
        parts.append(head + _excerpt(text.split("\n"), one.lines, name))
    return "\n".join(parts)


def _excerpt(lines: list[str], marked: tuple[int, int], name: str) -> str:
    """The lines of a violation, marked, with as many lines around them as the reference shows."""
    first, last = marked
    rule = "-" * 20
    shown = [f"{name}:{first}", rule]
    start, end = first, last
    taken = 0
    while taken < (4 if first == last else 2):
        taken += 1
        if start > 1:
            start, taken = start - 1, taken + 1
        if end < len(lines):
            end, taken = end + 1, taken + 1
    for number in range(start, end + 1):
        mark = ">>>" if first <= number <= last else "   "
        shown.append(f"{number:>4} | {mark} {_printable(lines[number - 1])}")
    return "\n".join([*shown, rule, ""])


def _printable(text: str) -> str:
    """The text as it may go to a terminal."""
    return "".join(c if c.isprintable() else " " * 4 if c == "\t" else "�" for c in text.rstrip("\r"))


def as_json(report: Report, options: BuildOptions) -> dict[str, Any]:
    """Return the warnings as `docker build --call=check,format=json` has them; characters count from 0.

    What BuildKit has no word for is left out where it says nothing: `severity` stands where it is no warning.
    """
    sources = [_source(options.name, "Dockerfile", options.dockerfile)]
    warnings = []
    for one in report.violations:
        location: dict[str, Any] = {"ranges": [_range(one.span)]}
        if one.file is not None:
            data = one.file.text.encode("utf-8", "surrogateescape")
            source = _source(one.file.name, "", data)
            if source not in sources:
                sources.append(source)
            location["sourceIndex"] = sources.index(source)
        warning = {
            "ruleName": one.rule.name,
            "description": one.rule.description,
            "url": one.rule.url,
            "detail": one.message,
            "location": location,
        }
        if one.severity is not Severity.WARNING:
            warning["severity"] = one.severity.value
        warnings.append(warning)
    document: dict[str, Any] = {"warnings": warnings, "sources": sources}
    if report.failure is not None:
        ranges = [_range(place.span) for place in _faults(report) if place.span is not None]
        document["buildError"] = {"message": report.failure.message, "location": {"ranges": ranges} if ranges else {}}
    return document


def _faults(report: Report) -> tuple[Diagnostic, ...]:
    """What keeps the Dockerfile from being understood or planned, with places."""
    error = report.error
    return error.diagnostics if isinstance(error, LocatedError | grammar.LocatedGrammarError) else ()


def _source(name: str, language: str, data: bytes) -> dict[str, str]:
    return {"filename": name, "language": language, "data": base64.b64encode(data).decode()}


def _range(span: Span) -> dict[str, Any]:
    return {
        "start": {"line": span.start.line, "character": span.start.column - 1},
        "end": {"line": span.end.line, "character": span.end.column - 1},
    }


def as_github(report: Report, name: str) -> str:
    """Return the warnings as workflow commands, which GitHub shows beside the lines."""
    lines = []
    for one in report.violations:
        first, last = one.lines
        place = f"file={_property(_file(one.file, name))},line={first},endLine={last}"
        command = _GITHUB[one.severity]
        lines.append(f"::{command} {place},title={_property(one.rule.name)}::{_data(one.message)}\n")
    for fault in _faults(report):
        place = f"file={_property(name)}" + (f",line={fault.span.start.line}" if fault.span else "")
        lines.append(f"::error {place},title={_property(fault.code)}::{_data(fault.message)}\n")
    return "".join(lines)


def _file(file: OtherFile | None, name: str) -> str:
    return name if file is None else file.name


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def as_sarif(report: Report, name: str) -> dict[str, Any]:
    """Return the warnings as a log in the Static Analysis Results Interchange Format 2.1.0; columns count from 1."""
    rules = {one.rule.name: one.rule for one in report.violations}
    described: list[dict[str, Any]] = []
    for rule in rules.values():
        entry = {"id": rule.name, "shortDescription": {"text": rule.description}, "help": {"text": rule.page}}
        if rule.url:
            entry["helpUri"] = rule.url
        described.append(entry | {"properties": {"tags": [rule.group]}})
    driver = {"name": "pybuild", "version": VERSION, "rules": described}
    results = [_result(one, name) for one in report.violations] + [_failure(one, name) for one in _faults(report)]
    return {"$schema": _SARIF, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}


def _result(violation: Violation, name: str) -> dict[str, Any]:
    place = {"artifactLocation": _artifact(violation, name), "region": _region(violation.span)}
    result: dict[str, Any] = {
        "ruleId": violation.rule.name,
        "level": _LEVELS[violation.severity],
        "message": {"text": violation.message},
        "locations": [{"physicalLocation": place}],
    }
    if violation.fix is not None:
        replacements = [
            {"deletedRegion": _region(edit.span), "insertedContent": {"text": edit.text}}
            for edit in violation.fix.edits
        ]
        change = {"artifactLocation": _artifact(violation, name), "replacements": replacements}
        result["fixes"] = [{"description": {"text": violation.fix.title}, "artifactChanges": [change]}]
    return result


def _failure(fault: Diagnostic, name: str) -> dict[str, Any]:
    place: dict[str, Any] = {"artifactLocation": {"uri": name.replace(os.sep, "/")}}
    if fault.span is not None:
        place["region"] = _region(fault.span)
    result = {"ruleId": fault.code, "level": "error", "message": {"text": fault.message}}
    return {**result, "locations": [{"physicalLocation": place}]}


def _artifact(violation: Violation, name: str) -> dict[str, str]:
    return {"uri": _file(violation.file, name).replace(os.sep, "/")}


def _region(span: Span) -> dict[str, int]:
    return {
        "startLine": span.start.line,
        "startColumn": span.start.column,
        "endLine": span.end.line,
        "endColumn": span.end.column,
    }
