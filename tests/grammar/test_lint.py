"""The check directive's options, and what excuses one instruction from a rule."""

from __future__ import annotations

import pytest

import grammar
from grammar.lint.engine import Linter, excused
from grammar.lint.options import CheckOptionError, CheckOptions
from grammar.lint.rules import FILE_RULES


def broken(text: str) -> list[tuple[str, int]]:
    """The rules about text that a Dockerfile breaks, with their lines."""
    linter = Linter(CheckOptions())
    linter.check_file(FILE_RULES, grammar.resolve(grammar.parse(text.encode())))
    return [(one.rule.name, one.lines[0]) for one in linter.ordered]


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", CheckOptions()),
        ("skip=A, B", CheckOptions(skip=frozenset({"A", "B"}))),
        ("skip=all;error=true", CheckOptions(skip=frozenset({"all"}), error=True)),
        ("experimental=C ; error=F", CheckOptions(experimental=frozenset({"C"}))),
    ],
)
def test_options(text: str, options: CheckOptions) -> None:
    """Parts are separated by semicolons, names by commas."""
    assert options == CheckOptions.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("skip", 'invalid check option "skip"'),
        ("level=high", 'invalid check option "level"'),
        (
            "error=maybe",
            'failed to parse check option "error=maybe": strconv.ParseBool: parsing "maybe": invalid syntax',
        ),
    ],
)
def test_malformed_options(text: str, message: str) -> None:
    """What means nothing is refused in the reference's words."""
    with pytest.raises(CheckOptionError) as caught:
        CheckOptions.parse(text)

    assert f"failed to parse check options: {message}" == caught.value.message
    assert caught.value.hint


def test_skipping_all_leaves_what_was_asked_for() -> None:
    """An experimental rule is chosen by name and not touched by skip=all."""
    options = CheckOptions.parse("skip=all;experimental=New")

    assert not options.wants("Old", experimental=False)
    assert options.wants("New", experimental=True)
    assert not options.wants("Newer", experimental=True)


def test_excuse() -> None:
    """The comment holds for the instruction below it; one that only looks like it excuses nothing."""
    text = b"FROM scratch\n# check=skip=A,B\n# check=the spelling\nENV a=b\nENV c=d\n"
    _, first, second = grammar.parse(text).instructions

    assert frozenset({"A", "B"}) == excused(first)
    assert frozenset() == excused(second)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("FROM scratch\nRUN a \\\n\n  b\n", 4),
        ("FROM scratch\nRUN a \\\n\n\n", 4),
        ("# escape=`\nFROM scratch\nRUN a `\n\n  b\n", 5),
        ("FROM scratch\nCOPY <<A <<B \\\n\n /x/\n\nA\n\nB\n", 4),
    ],
)
def test_empty_continuation(text: str, line: int) -> None:
    """A blank line between continued lines is told at the end of the instruction, before the bodies of heredocs."""
    assert [("NoEmptyContinuation", line)] == broken(text)


@pytest.mark.parametrize(
    "text",
    [
        "FROM scratch\n\nRUN a \\\n # comment\n  b\n\nRUN c\n",
        "FROM scratch\nRUN <<EOF\n\na\n\nEOF\n\nRUN b\n",
        "FROM scratch\nCOPY <<-A <<B /x/\n\n\tA\n\nB\n",
    ],
)
def test_blank_lines_elsewhere(text: str) -> None:
    """Blank lines between instructions and inside heredocs are fine."""
    assert [] == broken(text)


def test_casing_of_a_tie() -> None:
    """Where there are as many of both, upper case is right; mixed case always is wrong."""
    assert [("ConsistentInstructionCasing", 1)] == broken("from scratch\nENV a=b\n")
    assert [("ConsistentInstructionCasing", 2)] == broken("from scratch\nEnv a=b\n")
