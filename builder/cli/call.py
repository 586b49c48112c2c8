"""`pybuild build --call` and `--check`: questions about a Dockerfile, named as in `docker buildx build`.

Imported only where something is asked.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from builder.build import BuildOptions, parse
from builder.cli.checkformats import FORMATS
from builder.cli.context import Settings
from builder.errors import UsageError

if TYPE_CHECKING:
    from layerstore import Store

_FORMATS = {"check": FORMATS, "outline": ("text", "json"), "targets": ("text", "json")}
_NAMES = {"lint": "check"}
_CALLS = "build, check, outline and targets"


class Call(NamedTuple):
    """What is asked: a method of `_FORMATS` or "build", the form of the answer, and whether the status tells it too."""

    method: str
    form: str = "text"
    ignore_status: bool = False


def parse_call(text: str, form: str | None) -> Call:
    """Return what `--call=METHOD[,format=FORMAT][,ignorestatus=BOOL]` and `--format` mean; UsageError."""
    method, *options = text.split(",")
    method = _NAMES.get(method, method)
    if method != "build" and method not in _FORMATS:
        raise UsageError(f"--call: there is no {method!r}", hint=f"there are {_CALLS}")
    ignore_status = False
    for option in options:
        key, _, value = option.partition("=")
        if key == "format" and value:
            form = value
        elif key == "ignorestatus" and value in ("", "true", "false", "1", "0"):
            ignore_status = value in ("", "true", "1")
        else:
            raise UsageError(f"--call: {option!r} means nothing", hint="write format=FORMAT or ignorestatus=true")
    if method == "build":
        if form is not None:
            raise UsageError("--format is for --check and --call: a build has none", hint="leave it out")
        return Call(method)
    form = form or "text"
    if form not in _FORMATS[method]:
        hint = f"choose one of {', '.join(_FORMATS[method])}"
        raise UsageError(f"there is no format called {form!r} for {method}", hint=hint)
    return Call(method, form, ignore_status)


def answer(settings: Settings, call: Call, given: dict[str, Any], store: Store, options: BuildOptions) -> None:
    """Answer a question; `given` are the options of the command. UsageError for options that only a build has."""
    for name in ("outputs", "push", "load", "iidfile", "metadata_file"):
        if given[name]:
            option = name.removesuffix("s").replace("_", "-")
            asked = "--check" if given["check"] else f"--call={call.method}"
            message = f"{asked} builds nothing, so --{option} has nothing to write"
            raise UsageError(message, hint="leave one of them out")
    match call.method:
        case "check":
            from builder.cli.check import run_check, select_rules  # noqa: PLC0415 - one of three
            from grammar.lint.selection import REFERENCE  # noqa: PLC0415

            on_disk = options.path is not None and given["context"] != "-"
            selection = select_rules(settings, options if on_disk else None, default=REFERENCE)
            with contextlib.ExitStack() as ways_out:
                if call.ignore_status:
                    ways_out.enter_context(contextlib.suppress(click.exceptions.Exit))
                run_check(store, options, call.form, selection)
        case "outline":
            from builder.cli.outline import outline_of  # noqa: PLC0415
            from builder.cli.outline import show as show_outline  # noqa: PLC0415

            show_outline(outline_of(parse(options), options.plan, options.platforms), options.dockerfile, call.form)
        case "targets":
            from builder.cli.targets import show as show_targets  # noqa: PLC0415
            from builder.outline import stages_of, targets  # noqa: PLC0415

            dockerfile = stages_of(options.dockerfile, options.name)
            show_targets(targets(dockerfile), options.dockerfile, call.form, bases=False)
