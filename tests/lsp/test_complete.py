"""Completion, without a server: what is offered where, and what it would write."""

from __future__ import annotations

import random

import pytest

from builder.lsp.complete import Suggestions, complete
from builder.lsp.document import Document
from builder.lsp.hover import hover
from builder.lsp.outline import folds, outline
from builder.lsp.text import Text
from tests.grammar.test_draft import damaged

FILES = {"": [("app.py", False), ("src", True)], "src": [("main.c", False)]}


def at(source: str) -> tuple[Document, Suggestions]:
    """What is offered where the source has a `|`."""
    offset = source.index("|")
    document = Document(Text(source.replace("|", "", 1)))
    return document, complete(document, document.text.position(offset), lambda folder: FILES.get(folder, []))


def labels(source: str) -> list[str]:
    """The names of what is offered."""
    return [item.label for item in at(source)[1].items]


def chosen(source: str, label: str) -> str:
    """The source after taking an offer."""
    document, found = at(source)
    item = next(item for item in found.items if item.label == label)
    start, end = (document.text.place_of(place) for place in found.span)
    return document.text.replaced(start, end, item.text).source


ABOVE = "ARG VERSION=1\nFROM a AS one\nENV X=1\nARG VERSION\nFROM b AS two\n"


@pytest.mark.parametrize(
    ("source", "label", "after"),
    [
        ("|", "FROM", "FROM "),
        ("FROM a\nCO|", "COPY", "FROM a\nCOPY "),
        ("from a\nco|", "copy", "from a\ncopy "),
        ("from a\n|", "run", "from a\nrun "),
        ("FROM a\nONBUILD CO|", "COPY", "FROM a\nONBUILD COPY "),
        ("FROM a\nCOPY --fr|", "--from", "FROM a\nCOPY --from="),
        ("FROM a\nCOPY --li| a b", "--link", "FROM a\nCOPY --link a b"),
        ("FROM a\nRUN -|", "--mount", "FROM a\nRUN --mount="),
        ("FROM a\nRUN --mount=|", "type", "FROM a\nRUN --mount=type="),
        ("FROM a\nRUN --mount=type=ca|", "cache", "FROM a\nRUN --mount=type=cache"),
        ("FROM a\nRUN --mount=type=cache,sh| x", "sharing", "FROM a\nRUN --mount=type=cache,sharing= x"),
        ("FROM a\nRUN --mount=type=cache,sharing=|", "locked", "FROM a\nRUN --mount=type=cache,sharing=locked"),
        (ABOVE + "RUN --mount=from=o|,target=/x y", "one", ABOVE + "RUN --mount=from=one,target=/x y"),
        ("FROM a\nRUN --mount=type=bind,source=sr|", "src/", "FROM a\nRUN --mount=type=bind,source=src/"),
        ("FROM a\nRUN --network=|", "none", "FROM a\nRUN --network=none"),
        ("FROM a\nCOPY --link=| a b", "false", "FROM a\nCOPY --link=false a b"),
        (ABOVE + "COPY --from=|", "one", ABOVE + "COPY --from=one"),
        (ABOVE + "COPY --chown=a \\\n  --from=o|", "one", ABOVE + "COPY --chown=a \\\n  --from=one"),
        (ABOVE + "FROM |", "two", ABOVE + "FROM two"),
        (ABOVE + "FROM two a|", "as", ABOVE + "FROM two as "),
        ("ARG TAG=1\nFROM a:$|", "TAG", "ARG TAG=1\nFROM a:$TAG"),
        ("ARG TAG=1\nFROM a:${T|", "TAG", "ARG TAG=1\nFROM a:${TAG}"),
        ("ARG TAG=1\nFROM a:${T|}", "TAG", "ARG TAG=1\nFROM a:${TAG}"),
        ("FROM --platform=$B|", "BUILDPLATFORM", "FROM --platform=$BUILDPLATFORM"),
        ("FROM --platform=linux/am|", "linux/amd64", "FROM --platform=linux/amd64"),
        ("FROM a\nENV X=1\nCOPY <<E /x\n$|\nE\n", "X", "FROM a\nENV X=1\nCOPY <<E /x\n$X\nE\n"),
        ("ARG TAG\nFROM a\nARG T|", "TAG", "ARG TAG\nFROM a\nARG TAG"),
        ("FROM a\nARG |", "TARGETARCH", "FROM a\nARG TARGETARCH"),
        ("FROM a\nCOPY a|", "app.py", "FROM a\nCOPY app.py"),
        ("FROM a\nADD src/|", "main.c", "FROM a\nADD src/main.c"),
        ('FROM a\nCOPY ["./sr|', "src/", 'FROM a\nCOPY ["./src/'),
        ("FROM a\nHEALTHCHECK --retries=3 |", "CMD", "FROM a\nHEALTHCHECK --retries=3 CMD "),
        ("FROM a\nSTOPSIGNAL SIGQ|", "SIGQUIT", "FROM a\nSTOPSIGNAL SIGQUIT"),
        ("# sy|", "syntax", "# syntax="),
        ("# check=sk|\nFROM a", "skip=", "# check=skip=\nFROM a"),
        ("# check=skip=A,Und|\nFROM a", "UndefinedVar", "# check=skip=A,UndefinedVar\nFROM a"),
        ("FROM a\n# check=skip=|\nRUN x", "UndefinedVar", "FROM a\n# check=skip=UndefinedVar\nRUN x"),
        (
            "# escape=`\nFROM a\nCOPY --chown=a `\n --li| x y",
            "--link",
            "# escape=`\nFROM a\nCOPY --chown=a `\n --link x y",
        ),
    ],
)
def test_taking_an_offer(source: str, label: str, after: str) -> None:
    """What is offered completes what was begun, and nothing is lost around it."""
    assert chosen(source, label) == after


def test_stages_and_variables_that_count() -> None:
    """Only stages above are offered, and only variables that have a value there."""
    source = ABOVE + "COPY --from=|"
    assert labels(source) == ["one"]
    assert labels("FROM a AS one\nENV A=1\nFROM b\nENV B=$|") == []
    assert labels("FROM a AS one\nENV A=1\nFROM one\nRUN $|") == ["A"]
    assert labels("FROM a\nARG A\nENV B=1\nCMD $|") == ["B"]
    assert labels("FROM a\nRUN \\$|\nENV A=1") == []


@pytest.mark.parametrize(
    "source",
    ["FROM a\nRUN echo |", "FROM a\nCOPY --from=x |", "FROM a\nCOPY <<'E' /x\n$|\nE\n", "# just words|", "FROM a AS |"],
)
def test_where_nothing_is_known(source: str) -> None:
    """Text of people and shells is left alone."""
    assert labels(source) == []


def test_flags_are_offered_once() -> None:
    """A flag that may not be repeated is not offered again."""
    assert "--from" not in labels("FROM a\nCOPY --from=x --|")
    assert "--exclude" in labels("FROM a\nCOPY --exclude=x --|")
    assert "type" not in labels("FROM a\nRUN --mount=type=cache,|")


def test_nothing_breaks_anywhere() -> None:
    """Every question about every place of damaged files has an answer, and spans lie within the file."""
    rng = random.Random(3)
    for data in rng.sample(damaged(), 150):
        text = Text(data.decode("utf-8", "replace").replace("\n", rng.choice(["\n", "\r\n"])))
        document = Document(text)
        assert len(outline(document)) >= len(document.symbols.stages)
        for first, last, _ in folds(document):
            assert 1 <= first < last <= len(document.lines)
        for offset in rng.choices(range(len(text.source) + 1), k=25):
            position = text.position(offset)
            found = complete(document, position, lambda folder: FILES.get(folder, []))
            assert found.span.end == position
            assert found.span.start.line == position.line
            told = hover(document, position)
            assert told is None or told.span.start <= position <= told.span.end
