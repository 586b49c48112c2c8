"""Coverage-guided fuzzing of the grammar with atheris (`make fuzz`, minutes; no part of the test run).

Every input has to end in a tree or in a located error that can be shown; a tree prints to text that means the same,
and a tidied file means what it meant. Known Dockerfiles of the tests are what it starts from.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["grammar"]):
    import grammar
    import grammar.layout

TESTS = Path(__file__).parents[1]
VALUES = {"A": "a/b.c", "B": "", "E": "é*?\\"}


def check(data: bytes) -> None:
    """One input, all promises; whatever else is raised is a defect."""
    try:
        tree = grammar.parse(data)
    except grammar.ParseError as error:
        show(error)
        return
    printed = grammar.format_ast(tree).encode("utf-8", "surrogateescape")
    assert grammar.parse(printed) == tree, "printing changes the meaning"
    tidied = grammar.tidy(data)
    assert grammar.parse(tidied) == tree, "tidying changes the meaning"
    assert grammar.tidy(tidied) == tidied, "tidying twice is not tidying once"
    try:
        grammar.resolve(tree)
    except grammar.ResolveError as error:
        show(error)
    for word in data.decode("utf-8", "surrogateescape").split("\n")[:8]:
        with contextlib.suppress(grammar.ExpandError):
            grammar.expand(word, VALUES, escape=tree.escape)
        with contextlib.suppress(grammar.ExpandError):
            grammar.expand_words(word, VALUES, escape=tree.escape)
        with contextlib.suppress(grammar.MountError):
            grammar.parse_mount(word)
        with contextlib.suppress(grammar.DeviceError):
            grammar.parse_device(word)


def show(error: grammar.LocatedGrammarError) -> None:
    """A located error has at least one diagnostic, and all of them can be shown with the lines they are about."""
    assert error.diagnostics
    assert all(diagnostic.message for diagnostic in error.diagnostics)
    assert error.render()


def main() -> None:
    """Run libFuzzer with the words given (`-max_total_time=600`), from the Dockerfiles that lie below tests/."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as corpus:
        for number, path in enumerate(sorted(TESTS.glob("*/**/*Dockerfile*"))):
            if path.is_file():
                shutil.copyfile(path, Path(corpus) / str(number))
        atheris.Setup([*sys.argv, "-timeout=10", "-max_len=4096", corpus], check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
