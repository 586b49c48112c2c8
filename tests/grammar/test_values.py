"""Durations, near names, quoting."""

from __future__ import annotations

import pickle

import pytest

from grammar import Position, Span, Word
from grammar.duration import parse_duration
from grammar.text import did_you_mean, nearest, quote


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("1s", 10**9), ("1h2m3.5s", 3723_500_000_000), ("10us", 10_000), ("-1ms", -(10**6)), (".5s", 5 * 10**8)],
)
def test_durations(text: str, expected: int) -> None:
    """Go's durations in nanoseconds."""
    assert parse_duration(text) == expected


@pytest.mark.parametrize(
    ("text", "what"),
    [
        *((text, "invalid duration") for text in ("", "s", ".s", "-", "9999999999h", "1s.")),
        ("1", "missing unit in duration"),
        ("1.5.5s", "missing unit in duration"),
        ("1s2", "missing unit in duration"),
        ("1x", 'unknown unit "x" in duration'),
        ("5ss", 'unknown unit "ss" in duration'),
    ],
)
def test_bad_durations(text: str, what: str) -> None:
    """What Go refuses is refused, in its words."""
    with pytest.raises(ValueError, match=what) as caught:
        parse_duration(text)

    assert str(caught.value) == f'time: {what} "{text}"'


def test_near_names() -> None:
    """Two edits are near, three are not; the first of the nearest counts."""
    assert nearest("chowm", ("chown", "chmod")) == "chown"
    assert nearest("abcdef", ("abc", "xyz")) == ""
    assert did_you_mean("x", ("longer",)) == ""


def test_quoting() -> None:
    """Text in double quotes as Go prints it."""
    assert quote('a"\\\n\x01é\udcff\u2028') == '"a\\"\\\\\\n\\x01é\\xff\\u2028"'


def test_values_are_values() -> None:
    """Records compare by their fields, can be pickled and refuse fields they do not have."""
    word = Word(text="a", span=Span(Position(1, 1), Position(1, 2)))

    assert pickle.loads(pickle.dumps(word)) == word
    assert repr(word).startswith("Word(text='a', span=Span(")
    assert word.replace(text="b").text == "b"
    assert word != "a"
    with pytest.raises(TypeError):
        Word(text="a", spam=1)  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        del word.text
