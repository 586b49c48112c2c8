"""`pybuild parse` and `pybuild expand`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from builder.cli.expand import command as expand
from builder.cli.parse import command as parse
from builder.errors import UsageError
from grammar import ExpandError, ParseError


def _run(command: Any, *arguments: str, stdin: bytes | str = "") -> str:
    result = CliRunner().invoke(command, list(arguments), input=stdin, catch_exceptions=False, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_parse_as_json() -> None:
    """All keys of an instruction; flags and words are not judged."""
    source = b"# escape=\\\n# c\nFROM a\nRun --mount=x --odd='y z' <<-E \\\n && b\n\tq\nE\nCMD [\"\xff\"]\n"

    assert json.loads(_run(parse, "-", stdin=source)) == {
        "directives": {"escape": "\\"},
        "instructions": [
            {
                "keyword": "from",
                "flags": [],
                "args": ["a"],
                "json_form": False,
                "heredocs": [],
                "original": "FROM a",
                "start_line": 3,
                "end_line": 3,
                "prev_comments": ["c"],
            },
            {
                "keyword": "run",
                "flags": ["--mount=x", "--odd=y z"],
                "args": ["<<-E  && b"],
                "json_form": False,
                "heredocs": [{"name": "E", "expand": True, "chomp": True, "content": "\tq\n"}],
                "original": "Run --mount=x --odd='y z' <<-E  && b",
                "start_line": 4,
                "end_line": 7,
                "prev_comments": [],
            },
            {
                "keyword": "cmd",
                "flags": [],
                "args": ["\ufffd"],
                "json_form": True,
                "heredocs": [],
                "original": 'CMD ["\ufffd"]',
                "start_line": 8,
                "end_line": 8,
                "prev_comments": [],
            },
        ],
    }


def test_parse_as_text(tmp_path: Path) -> None:
    """One list in brackets for each instruction."""
    path = tmp_path / "Dockerfile"
    path.write_text("FROM a\nCOPY --from=x 'b c' d\nONBUILD ENV a=\"1\"\nCMD []\n")

    assert _run(parse, "--format", "text", str(path)) == (
        '(from "a")\n(copy ["--from=x"] "\'b" "c\'" "d")\n(onbuild (env "a" "\\"1\\""))\n(cmd)\n'
    )


def test_parse_refusals(tmp_path: Path) -> None:
    """A missing file is a usage error, a broken one is named in its error."""
    with pytest.raises(UsageError, match="No such file"):
        _run(parse, str(tmp_path / "none"))
    path = tmp_path / "X.Dockerfile"
    path.write_text("FROM a\nENV b\n")
    with pytest.raises(ParseError) as caught:
        _run(parse, str(path))
    assert caught.value.render().startswith(f"{path}:2:1: error[missing-value]")


def test_expand_a_word() -> None:
    """Variables from options, another escape character, words one a line."""
    assert _run(expand, "--env", "A=1", "--env", "B", "x${A:-2}[${B-u}]'q'") == "x1[]q\n"
    assert _run(expand, "--escape", "`", "`$A\\") == "$A\\\n"
    assert _run(expand, "--words", "--env", "A=b c", "$A 'd e'") == "b\nc\nd e\n"
    with pytest.raises(ExpandError):
        _run(expand, "${")


def test_expand_a_batch(tmp_path: Path) -> None:
    """A line of JSON is answered by one; an error is an answer."""
    questions = [
        {"word": "$A", "env": {"A": "1"}},
        {"word": "$A 'x y'", "env": ["A=1 2"], "words": True},
        {"word": "`$A", "escape": "`"},
        {"word": "${A"},
        {"word": "é"},
    ]
    path = tmp_path / "q.jsonl"
    path.write_text("\n".join(json.dumps(q) for q in questions) + "\n\n")

    assert [json.loads(line) for line in _run(expand, "--batch", str(path)).splitlines()] == [
        {"result": "1"},
        {"result": ["1", "2", "x y"]},
        {"result": "$A"},
        {"error": 'failed to process "${A": unsupported modifier (\ufffd) in substitution'},
        {"result": "é"},
    ]


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        ([], "", "no WORD"),
        (["--batch", "-", "x"], "", "from its lines"),
        (["--batch", "/nonexistent"], "", "cannot read"),
        (["--batch", "-"], "{", "line 1 is no JSON"),
        (["--batch", "-"], "\n[]", "line 2 has no word"),
        (["--batch", "-"], '{"word": "a", "env": 1}', "env is neither"),
        (["--batch", "-"], '{"word": "a", "escape": "x"}', "escape is neither"),
    ],
)
def test_expand_refusals(arguments: list[str], stdin: str, message: str) -> None:
    """Questions that ask nothing are named by their line."""
    with pytest.raises(UsageError, match=message):
        _run(expand, *arguments, stdin=stdin)
