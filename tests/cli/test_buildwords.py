"""The quick reader of `pybuild build`'s words: click, which reads the same table, says what is right."""

from __future__ import annotations

import click
import pytest

from builder.cli.app import app
from builder.cli.build import command
from builder.cli.buildwords import OPTIONS
from builder.cli.words import read_call
from tests.clickwords import by_click, random_lines

VALUES = ("", "-", "1", "0", "-1", "1.5", "x", "a=b", "=x", "host", "network.host", "-qt", "--pull", "build", ".")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["."],
        ["-"],
        ["-t", "app:1", "."],
        [".", "-t", "app:1", "-fDockerfile", "--build-arg=A=1", "--build-arg", "B"],
        ["--no-cache", "--pull", "-qt", "app", "x", "--progress", "plain"],
        ["-j2", "--network=host", "--allow", "network.host", "--allow=security.insecure"],
        ["-o", "type=oci,dest=x.tar", "--iidfile", "i", "--metadata-file=m", "https://example.com/x.git#main"],
    ],
    ids=" ".join,
)
def test_plain_calls_are_read(words: list[str]) -> None:
    """What people write is read without click, and as click reads it."""
    call = read_call(["build", *words])

    assert call is not None
    assert by_click(command, words) == call.given


@pytest.mark.parametrize(
    "words",
    [["--help"], ["--no-such"], ["-j", "0"], ["-j", "two"], ["--network", "moon"], ["a", "b"],
     ["--pull=yes"], ["-t"], ["--", "."], ["-qz"], ["--check"], ["--call", "outline"], ["--format=json"]],
    ids=" ".join,
)  # fmt: skip
def test_the_rest_is_clicks(words: list[str]) -> None:
    """Help, mistakes and what click is needed to answer are left to click."""
    assert read_call(["build", *words]) is None


def test_random_words_are_read_as_click_reads_them() -> None:
    """Of many random lines none is read differently from click, and most that click takes are read."""
    clicks = {name for option in OPTIONS for name in option.names if not option.plain}
    read = taken = 0
    for words in random_lines(OPTIONS, VALUES, seed=5, most_values=2):
        expected, call = by_click(command, words), read_call(["build", *words])
        taken += expected is not None and not any(word.partition("=")[0] in clicks for word in words)
        if call is not None:
            read += 1
            assert expected == call.given, words

    assert read > 0.9 * taken > 100


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--root", "/x", "build", "."], ("/x", False)),
        (["--debug", "--root=/y", "build"], ("/y", True)),
        (["-t", "app", "."], (None, False)),
        (["--root", "/x", "--pull", "-t", "run", "."], ("/x", False)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_pybuilds_own_options_come_first(words: list[str], expected: tuple[str | None, bool]) -> None:
    """--root and --debug come before the command, which need not be named where options follow."""
    call = read_call(words)

    assert call is not None
    assert ("build", *expected) == (call.command, call.root, call.debug)


@pytest.mark.parametrize(
    "words",
    [["."], ["images"], ["--version"], ["-h"], ["--root"], ["--root", "x"], ["--root", "build"], ["bulid", "."]],
)
def test_other_commands_are_not_taken_for_it(words: list[str]) -> None:
    """A word that is no option is left to the table of commands, which knows misspellings."""
    assert read_call(words) is None


def test_the_table_is_clicks() -> None:
    """Every option of the command comes from the table."""
    names = {option.value for option in OPTIONS} | {"context"}

    assert names == {parameter.name for parameter in command.params}
    assert command.name in app.list_commands(click.Context(app))
