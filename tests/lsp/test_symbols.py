"""Names, without a server: where they are declared and used, what is said about them, other names for stages."""

from __future__ import annotations

import pytest

from builder.lsp.document import Document, is_dockerfile
from builder.lsp.hover import hover
from builder.lsp.outline import Fold, folds, outline
from builder.lsp.rename import RenameError, rename
from builder.lsp.text import Text
from grammar import Position

SOURCE = """\
# TAG of the base
ARG TAG=1
FROM a:$TAG AS Build
ARG TAG
ENV X=${TAG}-x
RUN --mount=type=bind,from=build,target=/m echo "$X" '$X' $HOME
FROM build
COPY --from=Build --chown=$X a b
COPY --from=0 <<E /c
  $X
E
RUN <<E
echo $X
E
"""


def document(source: str = SOURCE) -> Document:
    return Document(Text(source))


def find(doc: Document, text: str, occurrence: int = 0, *, into: int = 0) -> Position:
    """The place of a text, counted from 0."""
    at = -1
    for _ in range(occurrence + 1):
        at = doc.text.source.index(text, at + 1)
    return doc.text.position(at + into)


def uses(doc: Document, position: Position) -> list[tuple[int, int]]:
    use = doc.symbols.use_at(position)
    assert use is not None
    return [(one.span.start.line, one.span.start.column) for one in doc.symbols.uses_of(use.target)]


def test_uses_of_a_stage() -> None:
    """A stage is meant by FROM in lower case, by copies and mounts in any case, and by its number."""
    doc = document()

    assert uses(doc, find(doc, "Build")) == [(3, 16), (6, 28), (7, 6), (8, 13), (9, 13)]
    assert document(SOURCE.replace("FROM build", "FROM Build")).symbols.use_at(Position(7, 6)) is None


def test_uses_of_variables() -> None:
    """A variable is one with the ARG it takes over; it reaches into stages based on its own, heredocs and commands."""
    doc = document()

    assert uses(doc, find(doc, "TAG=1")) == [(2, 5), (3, 9), (4, 5), (5, 9)]
    assert uses(doc, find(doc, "X=")) == [(5, 5), (6, 51), (8, 28), (10, 4), (13, 7)]


def test_equal_names_are_different_variables() -> None:
    """What two stages declare for themselves has nothing in common but the name."""
    doc = document("FROM a\nARG A=1\nRUN $A\nFROM b\nARG A=2\nRUN $A\nENV A=3\nRUN $A\n")

    assert uses(doc, Position(3, 6)) == [(2, 5), (3, 6)]
    assert uses(doc, Position(8, 6)) == [(5, 5), (6, 6), (7, 5), (8, 6)]


@pytest.mark.parametrize(
    ("text", "occurrence", "into", "said"),
    [
        ("${TAG}", 0, 3, "Taken over from the ARG in line 2"),
        ("$TAG", 0, 1, "of the base"),
        ("$X", 0, 1, "Its value is `1-x`"),
        ("Build", 1, 1, "Stage 0, lines 3 to 6."),
        ("COPY", 0, 1, "Copies files from the context"),
        ("--chown", 0, 3, "The owner of what is written"),
        ("type=bind", 0, 1, "What is mounted"),
        ("type=bind", 0, 6, "Files of the context"),
        ("target=", 0, 2, "Where it is mounted"),
    ],
)
def test_hover(text: str, occurrence: int, into: int, said: str) -> None:
    """Every kind of thing says what it is."""
    doc = document()
    found = hover(doc, find(doc, text, occurrence, into=into))

    assert found is not None
    assert said in found.text


@pytest.mark.parametrize("text", ["a:", "echo $X\nE", "$HOME"])
def test_hover_about_nothing(text: str) -> None:
    """Words of people, and variables that the file does not declare, are left alone."""
    doc = document()
    assert hover(doc, find(doc, text)) is None


def test_hover_shows_values_as_they_are() -> None:
    """Backticks and Markdown in a file are shown and not followed."""
    doc = document("FROM x\n# A *b* [c](d)\nARG A=a`b``c${Q}\nRUN $A\n")
    found = hover(doc, Position(4, 6))

    assert found is not None
    assert "```dockerfile\nARG A=a`b``c${Q}\n```" in found.text
    assert "\\*b\\* \\[c\\]\\(d\\)" in found.text
    assert "Its value is ``` a`b``c ```." in found.text


def test_rename() -> None:
    """A stage gets another name wherever it has one; its number stays."""
    doc = document(SOURCE.replace("Build", "build"))
    spans = rename(doc, find(doc, "build"), "made")

    assert [(span.start.line, span.start.column) for span in spans] == [(3, 16), (6, 28), (7, 6), (8, 13)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("1st", "no name for a stage"),
        ("a b", "no name for a stage"),
        ("", "no name for a stage"),
        ("scratch", "a meaning of its own"),
        ("context", "a meaning of its own"),
        ("OTHER", "there is a stage called OTHER already"),
        ("alpine", "alpine is an image or a context in line 3"),
        ("One", "a FROM that names One would mean an image"),
    ],
)
def test_names_that_cannot_be(name: str, message: str) -> None:
    """Refused is what is no name, and what would give the file another meaning."""
    doc = document("FROM a AS one\nFROM one AS other\nFROM alpine\nCOPY --from=one a b\n")

    with pytest.raises(RenameError, match=message):
        rename(doc, Position(1, 11), name)


def test_the_same_name_in_another_case() -> None:
    """Changing the case of a name is no clash with itself."""
    doc = document("FROM a AS One\nFROM b\nCOPY --from=ONE a b\n")

    assert len(rename(doc, Position(1, 11), "one")) == 2


def test_outline_and_folds() -> None:
    """Stages hold their instructions; what has several lines can be folded."""
    doc = document("# one\n# two\nARG A\nFROM a AS x\nRUN a \\\n  b\nFRMO x\nRUN <<E\nc\nE\nFROM b\n")
    found = outline(doc)

    assert [one.name for one in found] == ["ARG A", "x", "stage 1"]
    assert [one.name for one in found[1].children] == ["RUN a b", "RUN <<E"]
    assert found[1].whole.end == Position(10, 2)
    assert folds(doc) == [
        (1, 2, Fold.COMMENT), (4, 10, Fold.REGION), (5, 6, Fold.REGION), (8, 10, Fold.REGION),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "language", "expected"),
    [
        ("Dockerfile", "", True),
        ("dockerfile", "plaintext", True),
        ("Containerfile", "", True),
        ("Dockerfile.dev", "", True),
        ("web.Dockerfile", "", True),
        ("anything", "dockerfile", True),
        ("Dockerfile.dockerignore", "dockerfile", False),
        ("Makefile", "makefile", False),
        ("dockerfiles.md", "markdown", False),
    ],
)
def test_which_files_are_dockerfiles(name: str, language: str, expected: object) -> None:
    """By the language an editor gives it, or by its name; an ignore file never."""
    assert is_dockerfile(name, language) == expected


def test_triggers_that_are_nothing() -> None:
    """A trigger is read by whoever runs it: one that is no instruction has nothing to say, and breaks nothing."""
    doc = document("FROM a\nONBUILD FRMO --x b\n")

    assert hover(doc, Position(2, 11)) is None
    assert hover(doc, Position(2, 3)) is not None
