"""The quick reader of `pybuild run`'s words: click, which reads the same table, says what is right."""

from __future__ import annotations

import click
import pytest

from builder.cli.app import app
from builder.cli.run import command
from builder.cli.runwords import OPTIONS
from builder.cli.words import read_call
from tests.clickwords import by_click, random_lines

VALUES = ("", "-", "--", "1", "-1", "1.5", "x", "a=b", "=x", "bridge", "host", "always", "-it", "--rm", "run", "box")


@pytest.mark.parametrize(
    "words",
    [
        ["box"],
        ["--rm", "box", "true"],
        ["-it", "box", "-it"],
        ["-ite", "A=1", "-eB=2", "-e=C", "box"],
        ["--env=A=1", "--env", "B", "-p80", "-p", "81", "box", "--", "x"],
        ["--network=none", "--net", "host", "box"],
        ["--cpus", "1.5", "-c", "2", "--pids-limit", "-1", "box"],
        ["--name", "", "--entrypoint=", "box", ""],
        ["-v", "--rm", "box"],
        ["--rm", "-", "x"],
    ],
    ids=" ".join,
)
def test_plain_calls_are_read(words: list[str]) -> None:
    """What people write is read without click, and as click reads it."""
    call = read_call(["run", *words])

    assert call is not None
    assert by_click(command, words) == call.given


@pytest.mark.parametrize(
    "words",
    [[], ["--rm"], ["--help"], ["--no-such", "box"], ["--cpus", "many", "box"], ["--network", "moon", "box"],
     ["--rm=yes", "box"], ["-e"], ["--", "box"], ["-iz", "box"]],
    ids=" ".join,
)  # fmt: skip
def test_the_rest_is_clicks(words: list[str]) -> None:
    """Help, mistakes and whatever is unusual are left to click."""
    assert read_call(["run", *words]) is None


def test_random_words_are_read_as_click_reads_them() -> None:
    """Of many random lines none is read differently from click, and most that click takes are read."""
    read = taken = 0
    for words in random_lines(OPTIONS, VALUES, seed=4, most_values=3):
        expected, call = by_click(command, words), read_call(["run", *words])
        taken += expected is not None
        if call is not None:
            read += 1
            assert expected == call.given, words

    assert read > 0.9 * taken > 100


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--root", "/x", "run", "box"], ("/x", False)),
        (["--debug", "--root=/y", "run", "box"], ("/y", True)),
        (["run", "box"], (None, False)),
    ],
)
def test_pybuilds_own_options_come_first(words: list[str], expected: tuple[str | None, bool]) -> None:
    """--root and --debug before the command are read too."""
    call = read_call(words)

    assert call is not None
    assert expected == (call.root, call.debug)


@pytest.mark.parametrize(
    "words", [["build", "run"], ["--root"], ["--root", "run"], ["--version", "run", "box"], ["-x"]]
)
def test_other_commands_are_not_taken_for_it(words: list[str]) -> None:
    """`run` has to be the command, not somebody's argument."""
    call = read_call(words)

    assert call is None or call.command == "build"


def test_the_table_is_clicks() -> None:
    """Every option of the command comes from the table."""
    names = {option.value for option in OPTIONS} | {"image", "args"}

    assert names == {parameter.name for parameter in command.params}
    assert command.name in app.list_commands(click.Context(app))
