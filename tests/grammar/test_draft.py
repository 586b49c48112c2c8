"""Drafts: what can be read of a file that is being written, and where a text names variables."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from grammar import Ast, Diagnostic, ParseError, parse
from grammar.draft import parse_draft
from grammar.variables import Named, named, named_in_shell

CASES = sorted((Path(__file__).parent.parent / "cases").rglob("Dockerfile"))


def damaged() -> list[bytes]:
    """Recorded Dockerfiles, and what is left of some after a little accident."""
    rng = random.Random(7)
    files = [path.read_bytes() for path in CASES]
    found = list(files)
    for data in rng.choices(files, k=400):
        at = rng.randrange(len(data) + 1)
        found.append(rng.choice([data[:at], data[:at] + rng.choice([b"\n", b"<<E", b"\\", b'"', b"--"]) + data[at:]]))
    return found


def test_a_draft_is_what_parse_says() -> None:
    """A draft of a good file is its tree; one of a bad file has the very faults that `parse` raises."""
    for data in damaged():
        draft = parse_draft(data)
        faults, tree = parsed(data)
        assert draft.faults == faults
        assert tree is None or draft.ast == tree


def parsed(data: bytes) -> tuple[tuple[Diagnostic, ...], Ast | None]:
    """What `parse` says of a file."""
    try:
        return (), parse(data)
    except ParseError as error:
        return error.diagnostics, None


def test_the_rest_is_read() -> None:
    """What is around a line that cannot be read stays known, lines of heredocs and continuations included."""
    draft = parse_draft(b"FROM a AS x\nFRMO b\nCOPY --frm=x a b\nRUN a \\\n\n  b\nRUN <<E\nx\nE\nRUN <<F\ny\n")

    assert [fault.code for fault in draft.faults] == ["unknown-instruction", "unknown-flag", "heredoc-unterminated"]
    assert [(piece.line.first, piece.last, piece.end) for piece in draft.pieces] == [
        (1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 6, 6), (7, 7, 9), (10, 10, 11),
    ]  # fmt: skip
    assert [piece.node.keyword if piece.node else None for piece in draft.pieces] == [
        "from", None, "copy", "run", "run", None,
    ]  # fmt: skip
    assert [statement.keyword for statement in draft.ast.instructions] == ["from", "run", "run"]


def test_directives_that_contradict_each_other() -> None:
    """They are an error, and keep nobody from reading the instructions."""
    draft = parse_draft(b"# escape=`\n# escape=`\nFROM a\n")

    assert [fault.code for fault in draft.faults] == ["directive-repeated"]
    assert [statement.keyword for statement in draft.ast.instructions] == ["from"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("$A ${B} $AB_1", ["A", "B", "AB_1"]),
        ("${A:-$B} ${C:?no} ${D/x/$E}", ["A", "B", "C", "D", "E"]),
        ("'$A' \"$B\" \\$C", ["B"]),
        ("$1 $@ $", []),
        ("$A ${B", ["A", "B"]),
    ],
)
def test_variables_of_a_word(text: str, names: list[str]) -> None:
    """Every variable that an expansion would look up is found at its place, nested ones included."""
    found = named(text)

    assert [one.name for one in found] == names
    assert [text[one.start : one.end] for one in found] == names


def test_variables_of_a_heredoc() -> None:
    """Quotes are plain text there."""
    assert named("'$A'", quotes=False) == [Named("A", 2, 3)]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("echo $A '$B' \"it's $C\" \\$D", ["A", "C"]),
        ("x=${A:-1} && echo \"'$B'\"", ["A", "B"]),
        ("echo $1 $$ $(cat $F)", ["F"]),
        ("echo 'open $A", []),
    ],
)
def test_variables_of_a_command(text: str, names: list[str]) -> None:
    """What a shell would look up is found; single quotes hide, unless they are within double ones."""
    found = named_in_shell(text)

    assert [one.name for one in found] == names
    assert [text[one.start : one.end] for one in found] == names
