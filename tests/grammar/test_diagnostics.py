"""What diagnostics look like, byte for byte, and what trees hold."""

from __future__ import annotations

from typing import Any

import pytest

from grammar import Diagnostic, LocatedGrammarError, Position, Severity, Span, parse, resolve

BROKEN = {
    "words": b"FROM a b c d\n",
    "unknown": b"FROM a\n\tCOPPY x\n",
    "flag": b"FROM a\nCOPY --chowm=1 \\\n    a /a\n",
    "switch": b"FROM a\nCOPY --link=maybe a b\nCOPY --link= a b\nCOPY --from a b\nCOPY --link --link a b\n",
    "json": b'FROM a\nCMD ["a", 1]\n',
    "pairs": b"FROM a\nENV a=b c\nENV X\nENV =x\nLABEL\nARG =x\n",
    "heredoc": b"FROM a\nRUN <<E\necho\n",
    "destination": b"FROM a\nCOPY x <<E\nE\nCOPY x\n",
    "modes": b"FROM a\nRUN --network=hots x\nRUN --security=no x\n",
    "healthcheck": b"FROM a\nHEALTHCHECK --interval=x CMD y\nHEALTHCHECK NO\nHEALTHCHECK CMD\n"
    b"HEALTHCHECK --retries=-1 CMD x\n",
    "onbuild": b"FROM a\nONBUILD FROM b\nONBUILD ONBUILD RUN x\nONBUILD\n",
    "arguments": b'FROM a\nUSER\nSHELL sh\nVOLUME [""]\nEXPOSE\n',
    "directive": b"# escape=x\nFROM a\n",
    "cycle": b"FROM a AS x\nCOPY --from=y / /\nFROM x AS y\n",
    "before": b"RUN x\nFROM a\n",
    "stage": b"FROM a AS 1x\n",
    "empty": b"",
    "comments": b"# x\n\n",
    "control": b"FROM a\nENV \x1b[31mred\nB\x1b]0;x\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_rendered(name: str, snapshot: Any) -> None:
    """The place, the line, the caret and the next action of every kind of error."""
    with pytest.raises(LocatedGrammarError) as caught:
        resolve(parse(BROKEN[name]))

    assert caught.value.render() == snapshot


def test_tree(snapshot: Any) -> None:
    """A tree with everything in it, places included."""
    source = b"""# escape=`
ARG V=1
# base is described
FROM --platform=$P image:$V AS Base
ENV a=b `
    # inside
    c="d e"
RUN --mount=type=cache,target=/c <<-E cat
\tx
\tE
COPY --from=base --chown=1 ["a", "b"]
HEALTHCHECK --timeout=3s CMD ["x"]
ONBUILD ADD --unpack=false a b
"""
    assert parse(source) == snapshot


def test_long_lines_are_shown_around_the_place() -> None:
    """A line of many thousand characters does not fill the screen."""
    source = "x" * 30000 + "bad" + "y" * 30000
    span = Span(Position(1, 30001), Position(1, 30004))
    shown = Diagnostic(code="c", message="m", span=span).render(source, "F").split("\n")

    assert shown[0] == "F:1:30001: error[c]: m"
    assert len(shown[1]) < 250
    column = shown[2].index("^")
    assert shown[1][column : column + 3] == "bad"
    assert shown[2].count("^") == 3


def test_warnings_and_places_past_the_end() -> None:
    """A warning says so; a place behind the text has a head and no frame."""
    span = Span(Position(9, 1), Position(9, 2))

    assert Diagnostic(severity=Severity.WARNING, code="c", message="m", span=span).render("a") == (
        "Dockerfile:9:1: warning[c]: m"
    )
