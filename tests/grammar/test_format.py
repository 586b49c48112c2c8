"""Trees print back to source that parses to an equal tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from grammar import format_ast, format_instruction, parse, parse_instruction
from tests.gen import Generator

CASES = Path(__file__).parents[1] / "cases"


@pytest.mark.parametrize("block", range(10))
def test_round_trip_of_generated_files(block: int) -> None:
    """Whatever the generator writes is unchanged in meaning by printing, and printing again changes no character."""
    for seed in range(block * 60, block * 60 + 60):
        source = Generator(seed).dockerfile()
        tree = parse(source.encode())

        text = format_ast(tree)
        again = parse(text.encode())

        assert again == tree, source
        assert format_ast(again) == text, source


def test_round_trip_of_cases() -> None:
    """The Dockerfiles of all recorded cases that parse survive printing."""
    seen = 0
    for path in sorted(CASES.glob("*/*/*Dockerfile")):
        if path.parent.parent.name == "errors":
            continue
        tree = parse(path.read_bytes())
        assert parse(format_ast(tree).encode("utf-8", "surrogateescape")) == tree, path
        seen += 1

    assert seen > 100


def test_the_generator_is_a_function_of_its_seed() -> None:
    """A failing seed can be run again, and different seeds give different files."""
    assert Generator(7).dockerfile() == Generator(7).dockerfile()
    assert Generator(7).dockerfile() != Generator(8).dockerfile()


def test_comments_keep_their_places() -> None:
    """Comments above, inside and at the end of a file are still there."""
    source = b"# top\n\nFROM a\n# above\nRUN x \\\n# inside\n  y\n# end\n"

    assert format_ast(parse(source)) == "# top\n\nFROM a\n# above\nRUN \\\n# inside\nx   y\n# end\n"


def test_a_comment_never_becomes_a_directive() -> None:
    """A comment that reads like a directive, below a line that ended them, stays a comment."""
    source = b"# escape=`\n\n# check=skip=all\nFROM a\n"
    tree = parse(source)

    assert parse(format_ast(tree).encode()).directives == {"escape": "`"}
    assert parse(format_ast(tree).encode()) == tree


def test_a_comment_without_directives_above_stays_one() -> None:
    """Behind a blank first line `# escape=` is a comment, and printed so that it stays one."""
    tree = parse(b"\n# escape=`\nFROM a\n")

    assert parse(format_ast(tree).encode()) == tree


@pytest.mark.parametrize(
    "text",
    [
        "RUN --mount=type=cache,target=/x a  b",
        "COPY -- --odd /d",
        'ENTRYPOINT ["a", "b\\"c\\u0001"]',
        "HEALTHCHECK --retries=3 CMD x",
        "ONBUILD RUN <<E\nx\nE",
        "CMD",
    ],
)
def test_one_instruction(text: str) -> None:
    """An instruction by itself is printed as it was written where it was written plainly."""
    assert format_instruction(parse_instruction(text)) == text


@pytest.mark.parametrize(
    "text",
    [b'COPY ["a", "b\v"]', b'ADD ["a",\f"b"]', b'VOLUME [\v"a", "b"]', b"COPY [" + b"[" * 5000 + b"\v" + b"]" * 5001],
    ids=["in a string", "between words", "after the bracket", "deep"],
)
def test_words_that_look_like_a_list(text: bytes) -> None:
    """Blanks that JSON does not know make words of a list, and stay: with spaces it would be a list."""
    tree = parse(b"FROM a\n" + text + b"\n")

    assert parse(format_ast(tree).encode()) == tree
