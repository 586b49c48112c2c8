"""`pybuild expand`."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

import grammar
from builder.errors import UsageError

_LINE = 'write lines such as {"word": "${a:-b}", "env": {"a": "1"}, "escape": "\\\\", "words": false}'
_ESCAPES = ("\\", "`")


@click.command("expand", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--env", "env", multiple=True, metavar="K=V", help="Set a variable; may be repeated.")
@click.option("--escape", type=click.Choice(_ESCAPES), default="\\", show_default=True, help="The escape character.")
@click.option("--words", is_flag=True, help="Split the result at blanks outside quotes; one word a line.")
@click.option("--batch", metavar="FILE.jsonl", help="Expand a word for each line of JSON; - reads standard input.")
@click.argument("word", required=False)
def command(*, env: tuple[str, ...], escape: str, words: bool, batch: str | None, word: str | None) -> None:
    """Expand the variables of WORD as in a Dockerfile, and take its quotes and escapes away.

    The lines of --batch hold word, env, escape and words; each is answered by a line with result or error.
    """
    if batch is not None:
        if word is not None or env or words:
            raise UsageError(
                "--batch takes word, env and words from its lines", hint="leave WORD, --env and --words out"
            )
        _expand_lines(batch, escape)
        return
    if word is None:
        raise UsageError("there is no WORD to expand", hint="give a word, or --batch FILE.jsonl")
    result = _expand(word, _variables(list(env)), escape, words=words)
    for line in [result] if isinstance(result, str) else result:
        click.echo(line)


def _expand(word: str, env: dict[str, str], escape: str, *, words: bool) -> str | list[str]:
    if words:
        return list(grammar.expand_words(word, env, escape=escape).words)
    return grammar.expand(word, env, escape=escape).text


def _variables(pairs: list[str]) -> dict[str, str]:
    """Variables from `K=V`; `K` alone is set and empty."""
    return {key: value for key, _, value in (pair.partition("=") for pair in pairs)}


def _expand_lines(path: str, escape: str) -> None:
    try:
        lines = sys.stdin.read() if path == "-" else _read(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}", hint="name a file of JSON lines, or - for stdin") from error
    answers = []
    for number, line in enumerate(lines.split("\n"), 1):
        if not line.strip():
            continue
        word, env, own_escape, words = _question(line, number, escape)
        try:
            answer: dict[str, Any] = {"result": _expand(word, env, own_escape, words=words)}
        except grammar.ExpandError as error:
            answer = {"error": error.message}
        answers.append(json.dumps(answer))
    click.echo("".join(f"{answer}\n" for answer in answers), nl=False)


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as opened:
        return opened.read()


def _question(line: str, number: int, escape: str) -> tuple[str, dict[str, str], str, bool]:
    """What one line asks; UsageError with its number where it asks nothing."""
    try:
        asked = json.loads(line)
    except ValueError as error:
        raise UsageError(f"line {number} is no JSON: {error}", hint=_LINE) from error
    if not isinstance(asked, dict) or not isinstance(asked.get("word"), str):
        raise UsageError(f"line {number} has no word", hint=_LINE)
    env = asked.get("env") or {}
    if isinstance(env, list):
        env = _variables([str(pair) for pair in env])
    if not isinstance(env, dict):
        raise UsageError(f"line {number}: env is neither an object nor a list of K=V", hint=_LINE)
    own_escape = asked.get("escape") or escape
    if own_escape not in _ESCAPES:
        raise UsageError(f"line {number}: escape is neither \\ nor `", hint=_LINE)
    return asked["word"], {str(k): str(v) for k, v in env.items()}, own_escape, bool(asked.get("words"))
