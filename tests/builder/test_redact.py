"""Secrets in output, wherever the pieces end."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from builder.redact import MASK, Redactor


def _shown(secrets: list[bytes], pieces: list[bytes]) -> bytes:
    redactor = Redactor(secrets)
    return b"".join([*(redactor.feed(piece) for piece in pieces), redactor.end()])


def test_values_and_their_lines() -> None:
    """A secret goes without the line end it was kept with; of several lines each goes alone, too."""
    assert b"[***] x *** y" == _shown([b"hunter2\n"], [b"[hunter2] x hunter2 y"])
    assert b"a *** b *** c *** d" == _shown([b"first\nsecond\n"], [b"a first b second c first\nsecond d"])


def test_the_longest_wins() -> None:
    """A secret that begins with another one is replaced whole."""
    assert b"*** ***" == _shown([b"pass", b"password"], [b"password pass"])


def test_short_values_stay() -> None:
    """What is too short to be told from other output is not looked for."""
    assert b"1 yes" == _shown([b"1", b"yes", b""], [b"1 yes"])


def test_nothing_waits_without_need() -> None:
    """Only what may be the start of a secret is held back."""
    redactor = Redactor([b"hunter2"])

    assert b"password: " == redactor.feed(b"password: hun")
    assert b"hunk\n" == redactor.feed(b"k\n")
    assert b"" == redactor.end()


@given(st.lists(st.sampled_from([b"abab", b"a", b"b", b"ab", b"\n", b"ababc", b"c"])), st.integers(1, 7))
@example([b"a", b"abab", b"ab"], 1)
@example([b"aba", b"b", b"abc"], 2)
def test_pieces_do_not_matter(words: list[bytes], size: int) -> None:
    """However the stream is cut, no secret is left in it."""
    text = b"".join(words)
    shown = _shown([b"abab", b"ababc"], [text[at : at + size] for at in range(0, len(text), size)])

    assert all(b"abab" not in part for part in shown.split(MASK))


@given(st.binary(max_size=60), st.integers(1, 9))
def test_other_output_is_kept(text: bytes, size: int) -> None:
    """Where no secret is, nothing is changed."""
    pieces = [text[at : at + size] for at in range(0, len(text), size)]

    assert text.replace(b"\xfesecret\xff", MASK) == _shown([b"\xfesecret\xff"], pieces)
