"""Places in a text: offsets, those of clients in three encodings, and those of the grammar."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.lsp.edits import differences
from builder.lsp.text import Place, Text
from grammar import Position

TEXTS = st.text(st.sampled_from("ab \té一😀\x0c\u2028\x85\r\n\n"), max_size=40)
ENCODINGS = st.sampled_from(["utf-8", "utf-16", "utf-32"])
UNITS = {"utf-8": ("utf-8", 1), "utf-16": ("utf-16-le", 2), "utf-32": ("utf-32-le", 4)}


@given(TEXTS, ENCODINGS)
def test_places_and_offsets(source: str, encoding: str) -> None:
    """A place counts what is before it on its line in units of the encoding, and leads back to its offset."""
    text = Text(source, encoding)
    codec, size = UNITS[encoding]
    for offset in range(len(source) + 1):
        if source[offset - 1 : offset + 1] == "\r\n":
            continue  # within a line ending there is no place
        place = text.place(offset)
        before = source[:offset].replace("\r\n", "\n").replace("\r", "\n")
        assert place.line == before.count("\n")
        assert place.character == len(before.rpartition("\n")[2].encode(codec)) // size
        assert text.offset(place) == offset


@pytest.mark.parametrize(
    ("place", "offset"), [(Place(0, 99), 2), (Place(1, 99), 6), (Place(9, 0), 6), (Place(0, 0), 0), (Place(1, 1), 5)]
)
def test_places_that_are_not_there(place: Place, offset: int) -> None:
    """A place behind the end of a line is its end, and one behind the last line the end of the text."""
    assert Text("ab\r\ncd").offset(place) == offset


@given(TEXTS, TEXTS, ENCODINGS, st.data())
def test_edits_are_those_of_the_client(source: str, new: str, encoding: str, data: st.DataObject) -> None:
    """Replacing between two places replaces between their offsets."""
    text = Text(source, encoding)
    last = data.draw(st.integers(0, len(source)))
    first = data.draw(st.integers(0, last))
    if "\r\n" in (source[first - 1 : first + 1], source[last - 1 : last + 1]):
        return

    assert text.replaced(text.place(first), text.place(last), new).source == source[:first] + new + source[last:]


def test_the_grammars_places() -> None:
    """The grammar drops a byte order mark, and breaks lines at LF alone."""
    text = Text("\ufeffa\rb\r\nc")

    assert text.place_of(Position(1, 1)) == (0, 1)
    assert text.place_of(Position(1, 3)) == (1, 0)
    assert text.place_of(Position(2, 1)) == (2, 0)
    assert text.position(0) == Position(1, 1)
    assert [text.position(offset) for offset in (1, 3, 6)] == [Position(1, 1), Position(1, 3), Position(2, 1)]


def test_half_a_pair() -> None:
    """Half a surrogate pair is no character; what the grammar reads instead is as long."""
    assert Text("a\ud83db").data.decode() == "a\ufffdb"


@given(TEXTS, TEXTS)
def test_differences(before: str, after: str) -> None:
    """The edits lead from one text to the other, and do not overlap."""
    result, at = "", 0
    for start, end, new in differences(before, after):
        assert at <= start <= end
        result += before[at:start] + new
        at = end

    assert result + before[at:] == after
