"""`grammar.tidy` moves what stands around the words of a Dockerfile, and nothing else."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from grammar import ParseError, parse, tidy
from tests.gen import Generator

TESTS = Path(__file__).parents[1]
ODDITIES = (
    "\\",
    "`",
    " ",
    "\t",
    "\n",
    "\\\n",
    " `\n  ",
    "#",
    "\v",
    "\xa0",
    "\r",
    "\x1c",
    "\0",
    "<<E",
    "'",
    "[",
    "]",
    "--",
    "=",
)


@pytest.mark.parametrize("block", range(10))
def test_generated_files(block: int) -> None:
    """Whatever the generator writes means the same when tidied, and tidying again changes no byte."""
    for seed in range(block * 60, block * 60 + 60):
        source = Generator(seed).dockerfile().encode()

        text = tidy(source)

        assert parse(text) == parse(source), source
        assert tidy(text) == text, source


@pytest.mark.parametrize("seed", range(5))
def test_damaged_files(seed: int) -> None:
    """Odd characters in odd places: what still parses means the same when tidied, and stays tidy."""
    random = Random(seed)
    seen = 0
    for _ in range(400):
        source = Generator(random.randrange(10**6)).dockerfile()
        for _ in range(random.randint(1, 5)):
            at = random.randrange(len(source) + 1)
            source = source[:at] + random.choice(ODDITIES) + source[at:]
        try:
            text = tidy(source.encode())
        except ParseError:
            continue
        assert tidy(text) == text, source
        seen += 1

    assert seen > 30


def test_recorded_files() -> None:
    """So it is with every Dockerfile of the recorded cases and of the corpus that parses."""
    seen = 0
    for path in sorted(TESTS.glob("*/**/*Dockerfile*")):
        if not path.is_file():
            continue
        source = path.read_bytes()
        try:
            tree = parse(source)
        except ParseError:
            continue
        text = tidy(source)
        assert parse(text) == tree, path
        assert tidy(text) == text, path
        seen += 1

    assert seen > 300


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from   a   as  b \n", "from a as b\n"),
        ("FROM a\nrun x\n", "FROM a\nRUN x\n"),
        ("from a as b\nrun x\nCOPY . .\n", "from a as b\nrun x\ncopy . .\n"),
        ("FROM a as b\nRUN  x   y\n", "FROM a AS b\nRUN x   y\n"),
        ("arg A\nARG B\nFROM a\nEnv A=1\n", "ARG A\nARG B\nFROM a\nENV A=1\n"),
        ("FROM a\nhealthcheck  none\n", "FROM a\nHEALTHCHECK NONE\n"),
        ("FROM a\nHEALTHCHECK --retries=3   cmd  x\n", "FROM a\nHEALTHCHECK --retries=3 CMD x\n"),
        ("FROM a\nonbuild  run   x\nUSER b\n", "FROM a\nONBUILD run   x\nUSER b\n"),
        ("FROM a\nONBUILD RUN x  \n", "FROM a\nONBUILD RUN x  \n"),
        ('FROM a\nADD  ["a\t b",  "x"]\n', 'FROM a\nADD ["a\t b",  "x"]\n'),
        ("# escape=`\nFROM a\nLABEL  `  u=1\n", "# escape=`\nFROM a\nLABEL `  u=1\n"),
        ('FROM a\nRUN  \xa0["x"]\n', 'FROM a\nRUN \xa0 ["x"]\n'),
        ("FROM a\nONBUILD ARG a\r\\\n", "FROM a\nONBUILD ARG a\r\\\n"),
        ('FROM a\nCOPY <<\r"E"  b\nE\n', 'FROM a\nCOPY <<\r"E" b\nE\n'),
        ("FROM a\nRUN  --  --x\n", "FROM a\nRUN -- --x\n"),
    ],
)
def test_words_and_keywords(source: str, expected: str) -> None:
    """One blank between words, keywords in the case of most of them, the text of a command as it is."""
    assert tidy(source.encode()) == expected.encode()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("FROM a\nENV A=1  \\\n B=2 \\  \n\tC=3\n", "FROM a\nENV A=1 \\\n    B=2 \\\n    C=3\n"),
        ("FROM a\nLABEL \\\n  a='x \\\n y' \\\n  b=2\n", "FROM a\nLABEL \\\n    a='x \\\n y' \\\n    b=2\n"),
        ("FROM a\nCOPY a  b \\\n\n\n # why\n  /d/\n", "FROM a\nCOPY a b \\\n    # why\n    /d/\n"),
        ("FROM a\nRUN --network=none \\\n x\n", "FROM a\nRUN --network=none \\\n    x\n"),
        ("FROM a\nRUN --network=none  \\\n  a && \\\n   # c  \n\n  b  \n",
         "FROM a\nRUN --network=none \\\n  a && \\\n   # c\n  b\n"),
        ('FROM a\nCMD [ "a" ,"b",\\\n "c"\\\n  ]\n', 'FROM a\nCMD ["a", "b", \\\n    "c" \\\n]\n'),
        ("FROM a\nCMD [ ]\n", "FROM a\nCMD []\n"),
        ("# escape=`\nFROM a\nENV A=1 `\n B=\\\n", "# escape=`\nFROM a\nENV A=1 `\n    B=\\\n"),
        ("FROM a\nRUN x \\\n# end", "FROM a\nRUN x \\\n    # end\n"),
        ("FROM a\nRUN x \\\n", "FROM a\nRUN x\n"),
        ("FROM a\nRUN x \\\v\n", "FROM a\nRUN x \\\v\n"),
        ("\\\n # c\nFROM  a\n", "\\\n# c\nFROM a\n"),
    ],
)  # fmt: skip
def test_continued_lines(source: str, expected: str) -> None:
    """Lines stay broken where they are; words are indented by four, what is inside a word or a command is not."""
    assert tidy(source.encode()) == expected.encode()


def test_heredocs_are_kept() -> None:
    """Bodies are not touched, not even blanks at the ends of their lines."""
    source = b"FROM a\nrun   cat <<-'E'  >/x  <<F  \n\t a  \n\n\n\tE\n # b \\\nF\nCOPY  <<E   /e\n\nE\n\n\n\nUSER b\n"

    assert tidy(source) == (
        b"FROM a\nRUN cat <<-'E'  >/x  <<F\n\t a  \n\n\n\tE\n # b \\\nF\nCOPY <<E /e\n\nE\n\nUSER b\n"
    )


def test_comments_and_empty_lines() -> None:
    """Of empty lines one is left, none at the ends; comments lose their indentation, directives get one form."""
    source = b"\n\n#Syntax =  x/y \n#c\n\n\n  #  d  \n \nFROM a\n\n# e\n\n\n"

    assert tidy(source) == b"\n#Syntax =  x/y\n#c\n\n#  d\n\nFROM a\n\n# e\n"
    assert tidy(source.lstrip()) == b"# syntax=x/y\n#c\n\n#  d\n\nFROM a\n\n# e\n"


def test_line_endings_are_those_of_the_first_line() -> None:
    """A byte order mark goes, carriage returns stay if the file begins with one, and in heredocs always."""
    assert tidy(b"\xef\xbb\xbfFROM a\r\nRUN x \\\n  y") == b"FROM a\r\nRUN x \\\r\n  y\r\n"
    assert tidy(b"FROM a\r\n\n\r\nRUN <<E\nx\r\ny\nE") == b"FROM a\r\n\r\nRUN <<E\r\nx\r\ny\nE\r\n"
    assert tidy(b"FROM a\nRUN x\r\n") == b"FROM a\nRUN x\n"


def test_bytes_that_are_no_text_are_kept() -> None:
    """A file is bytes; those that are no UTF-8 are in the result."""
    assert tidy(b"FROM a\nRUN   echo \xff\n") == b"FROM a\nRUN echo \xff\n"


def test_a_broken_file_is_refused() -> None:
    """What cannot be parsed has no layout: the error has its place."""
    with pytest.raises(ParseError) as caught:
        tidy(b"FROM a\nNOPE\n", name="x")
    assert caught.value.render().startswith("x:2:1: error[unknown-instruction]")
