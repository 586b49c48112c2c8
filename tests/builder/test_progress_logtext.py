"""Output in arbitrary pieces: what a step wrote is the same text however it was cut."""

from __future__ import annotations

import random

import pytest

from builder.progress.logtext import NEWLINE, RETURN, LogText

SAMPLE = (
    "plain\nüñï → €\r\n\x1b[31mred\x1b[0m \x1b[2K\x1b[1Aup\r50%\r100%\r\r\n"
    "\x1b]0;title\x07tab\there \x1b(B end\x08\x00\n\x1bPdcs\x1b\\last"
).encode()


def text(pieces: list[bytes]) -> str:
    """All tokens of the pieces, joined."""
    stream = LogText()
    tokens = [token for piece in pieces for token in stream.feed(piece)]
    return "".join([*tokens, *stream.feed(b"", final=True)])


def test_what_is_kept() -> None:
    """Text and colours stay, cursor movement and titles go, every kind of line end is told apart."""
    expected = "plain\nüñï → €\n\x1b[31mred\x1b[0m up\r50%\r100%\ntab\there  end\nlast"

    assert expected == text([SAMPLE])


def test_cut_anywhere() -> None:
    """Cutting between any two bytes, in a character or in an escape sequence, changes nothing."""
    whole = text([SAMPLE])
    for at in range(len(SAMPLE)):
        assert whole == text([SAMPLE[:at], SAMPLE[at:]]), at
    assert whole == text([SAMPLE[at : at + 1] for at in range(len(SAMPLE))])


def test_cut_at_random() -> None:
    """Many cuts at once change nothing either."""
    whole = text([SAMPLE * 3])
    chance = random.Random(7)
    for _ in range(200):
        cuts = sorted(chance.sample(range(len(SAMPLE) * 3), 12))
        pieces = [(SAMPLE * 3)[a:b] for a, b in zip([0, *cuts], [*cuts, len(SAMPLE) * 3], strict=True)]
        assert whole == text(pieces)


def test_bytes_that_are_no_utf_8() -> None:
    """They become the replacement character; the end of the stream gives out what was held back."""
    assert "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}" == text([b"a\xffb\xe2\x82"])


@pytest.mark.parametrize("start", [b"\x1b]0;", b"\x1bP", b"\x1b["])
def test_a_sequence_without_an_end_is_not_held_back_for_ever(start: bytes) -> None:
    """A program that begins an escape sequence and never ends it cannot make its output disappear."""
    stream = LogText()
    tokens = stream.feed(start + b"1" * 10_000)

    assert "1" * 10_000 in "".join(tokens)


def test_lines_are_tokens() -> None:
    """Line ends come as tokens of their own, so that nobody has to look for them again."""
    assert ["a", NEWLINE, NEWLINE, "b", RETURN, "c"] == LogText().feed(b"a\n\nb\rc")
    assert ["a", NEWLINE, NEWLINE, "b"] == LogText().feed(b"a\n\nb")
