"""`pybuild parse`."""

from __future__ import annotations

import json
import re
from typing import Any

import click

import grammar
from builder.cli.dockerfiles import read_dockerfile
from grammar.text import quote

_UNDECODED = re.compile("[\udc80-\udcff]")


@click.command("parse", context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--format",
    "form",
    type=click.Choice(["json", "text"]),
    default="json",
    help="JSON, or one list in brackets a line.",
)
@click.argument("file", metavar="FILE")
def command(*, form: str, file: str) -> None:
    """Show how the Dockerfile FILE is understood; - reads standard input.

    Only the grammar is applied: names of flags, numbers of arguments and references between stages are not checked.
    """
    data, name = read_dockerfile(file)
    directives, nodes = grammar.parse_nodes(data, name=name)
    if form == "text":
        text = "".join(f"({_listed(node)})\n" for node in nodes)
    else:
        shown = {"directives": directives, "instructions": [_described(node) for node in nodes]}
        text = json.dumps(shown, ensure_ascii=False, indent=2) + "\n"
    # Bytes that are no UTF-8 have no place in JSON.
    click.echo(_UNDECODED.sub("\ufffd", text), nl=False)


def _described(node: grammar.Node) -> dict[str, Any]:
    return {
        "keyword": node.keyword,
        "flags": [_flag(flag) for flag in node.flags],
        "args": node.arguments,
        "json_form": node.json,
        "heredocs": [
            {
                "name": heredoc.name,
                "expand": heredoc.expand,
                "chomp": heredoc.chomp,
                "content": heredoc.content,
            }
            for heredoc in node.heredocs
        ],
        "original": node.line.text,
        "start_line": node.line.first,
        "end_line": node.line.last,
        "prev_comments": list(node.line.reference_comments),
    }


def _flag(flag: grammar.Flag) -> str:
    return f"--{flag.name}" if flag.value is None else f"--{flag.name}={flag.value}"


def _listed(node: grammar.Node) -> str:
    """Keyword, flags and arguments, as the S-expressions that parsers of Dockerfiles are compared by."""
    words = [node.keyword]
    if node.flags:
        words.append(f"[{' '.join(quote(_flag(flag)) for flag in node.flags)}]")
    words += [f"({_listed(node.child)})"] if node.child else [quote(argument) for argument in node.arguments]
    return " ".join(words)
