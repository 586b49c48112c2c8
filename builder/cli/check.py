"""`pybuild check`, and what `pybuild build --check` does: the rules' warnings in the form that was asked for."""

from __future__ import annotations

import base64
import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from builder.build import BuildOptions, parse
from builder.check import Report, check
from builder.cli.context import Settings
from builder.cli.inputs import parse_pairs, read_inputs
from builder.cli.state import state_directory
from builder.errors import LocatedError
from builder.plan import PlanOptions
from builder.version import VERSION
from grammar import Span
from layerstore.platforms import Platform

if TYPE_CHECKING:
    from grammar.lint.rule import Violation
    from layerstore import Store

FORMATS = ("text", "json", "github", "sarif")
_SARIF = "https://json.schemastore.org/sarif-2.1.0.json"
_MARGIN = 1


@click.command("check")
@click.argument("context", default=".")
@click.option("-f", "--file", metavar="FILE", help="The Dockerfile (default: CONTEXT/Dockerfile); - is stdin.")
@click.option("--target", metavar="STAGE", help="Look at what this stage needs (default: at every stage).")
@click.option("--build-arg", "build_args", multiple=True, metavar="NAME[=VALUE]", help="A value for an ARG.")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="text",
    help="For people, as BuildKit's JSON, as annotations of GitHub, or as SARIF.",
)
@click.pass_obj
def command(
    settings: Settings, *, context: str, file: str | None, target: str | None, build_args: tuple[str, ...], form: str
) -> None:
    """Look for likely mistakes in a Dockerfile without building it.

    CONTEXT is a directory, or - for a tar or a Dockerfile on standard input. The rules are those of BuildKit;
    docs/rules describes them. The exit status is 1 where one of them is broken. Base images are looked up in the store
    only.
    """
    with settings.open_store() as store, _workspace(context) as workspace:
        inputs = read_inputs(settings, context, file, unpack_to=workspace)
        platform = Platform.parse(settings.platform, host=Platform.of("linux", "amd64"))
        options = BuildOptions(
            plan=PlanOptions(
                platform=platform,
                build_platform=platform,
                context=inputs.context,
                target=target,
                build_args=parse_pairs(build_args, "--build-arg", settings.environ),
            ),
            dockerfile=inputs.dockerfile,
            name=inputs.name,
            path=inputs.path,
            state=state_directory(settings),
        )
        run_check(store, options, form)


@contextlib.contextmanager
def _workspace(context: str) -> Iterator[Path]:
    """A directory for a context that arrives on stdin; others are read where they are."""
    if context != "-":
        yield Path(context)
        return
    import tempfile  # noqa: PLC0415 - few contexts arrive on stdin

    with tempfile.TemporaryDirectory(prefix="pybuild-check-") as name:
        yield Path(name)


def run_check(store: Store, options: BuildOptions, form: str) -> None:
    """Check and print; ends the process with 1 where a rule is broken. GrammarError, BuildError."""
    dockerfile = parse(options)
    report = check(store, options, dockerfile, whole=True)
    source = dockerfile.ast.source
    if form == "text":
        text = as_text(report, source, options.name)
    elif form == "github":
        text = as_github(report, options.name)
    else:
        document = as_json(report, options) if form == "json" else as_sarif(report, options.name)
        text = json.dumps(document, indent=2) + "\n"
    click.echo(text, nl=False)
    if report.error is not None:
        raise report.error
    if report.violations:
        raise click.exceptions.Exit(1)


def as_text(report: Report, source: str, name: str) -> str:
    """Return the warnings for people: the rule and its page, the message, the lines."""
    count = len(report.violations)
    if not count:
        return "" if report.error else "Check complete, no warnings found.\n"
    lines = source.split("\n")
    parts = [f"Check complete, {count} warning{' has' if count == 1 else 's have'} been found!\n"]
    for one in report.violations:
        head = f"WARNING: {one.rule.name} - {one.rule.url}\n{_printable(one.message)}\n"
        parts.append(head + _excerpt(lines, one.lines, name))
    return "\n".join(parts)


def _excerpt(lines: list[str], marked: tuple[int, int], name: str) -> str:
    """The lines of a violation, marked, with one line around them."""
    first, last = marked
    rule = "-" * 20
    shown = [f"{name}:{first}", rule]
    for number in range(max(first - _MARGIN, 1), min(last + _MARGIN, len(lines)) + 1):
        mark = ">>>" if first <= number <= last else "   "
        shown.append(f"{number:>4} | {mark} {_printable(lines[number - 1])}".rstrip())
    return "\n".join([*shown, rule, ""])


def _printable(text: str) -> str:
    """The text as it may go to a terminal."""
    return "".join(c if c.isprintable() else " " * 4 if c == "\t" else "�" for c in text.rstrip("\r"))


def as_json(report: Report, options: BuildOptions) -> dict[str, Any]:
    """Return the warnings as `docker build --call=check,format=json` has them; characters count from 0."""
    document: dict[str, Any] = {
        "warnings": [
            {
                "ruleName": one.rule.name,
                "description": one.rule.description,
                "url": one.rule.url,
                "detail": one.message,
                "location": {"ranges": [_range(one.span)]},
            }
            for one in report.violations
        ],
        "sources": [
            {
                "fileName": options.name,
                "language": "Dockerfile",
                "data": base64.b64encode(options.dockerfile).decode(),
            }
        ],
    }
    if report.error is not None:
        places = report.error.diagnostics if isinstance(report.error, LocatedError) else ()
        ranges = [_range(place.span) for place in places if place.span is not None]
        document["buildError"] = {"message": report.error.message, "location": {"ranges": ranges}}
    return document


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
        place = f"file={_property(name)},line={first},endLine={last}"
        lines.append(f"::warning {place},title={_property(one.rule.name)}::{_data(one.message)}\n")
    return "".join(lines)


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def as_sarif(report: Report, name: str) -> dict[str, Any]:
    """Return the warnings as a log in the Static Analysis Results Interchange Format 2.1.0; columns count from 1."""
    rules = {one.rule.name: one.rule for one in report.violations}
    described = [
        {"id": rule.name, "shortDescription": {"text": rule.description}, "helpUri": rule.url}
        for rule in rules.values()
    ]
    driver = {"name": "pybuild", "version": VERSION, "rules": described}
    results = [_result(one, name) for one in report.violations]
    return {"$schema": _SARIF, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}


def _result(violation: Violation, name: str) -> dict[str, Any]:
    span = violation.span
    region = {
        "startLine": span.start.line,
        "startColumn": span.start.column,
        "endLine": span.end.line,
        "endColumn": span.end.column,
    }
    place = {"artifactLocation": {"uri": name.replace(os.sep, "/")}, "region": region}
    return {
        "ruleId": violation.rule.name,
        "level": "warning",
        "message": {"text": violation.message},
        "locations": [{"physicalLocation": place}],
    }
