"""--chmod: octal and symbolic modes as BuildKit applies them."""

from __future__ import annotations

import pytest

from builder.chmod import ModeError, parse_mode


@pytest.mark.parametrize(
    ("text", "before", "directory", "after"),
    [
        ("750", 0o644, False, 0o750),
        ("4711", 0o644, False, 0o4711),
        ("0", 0o644, False, 0),
        ("u=rwX,go=rX", 0o600, False, 0o644),
        ("u=rwX,go=rX", 0o700, False, 0o755),
        ("u=rwX,go=rX", 0o600, True, 0o755),
        ("+x", 0o640, False, 0o751),
        ("g=u", 0o640, False, 0o660),
        ("go-u", 0o777, False, 0o700),
        ("a-w,o=", 0o666, False, 0o440),
        ("u+s,g+s,+t", 0o755, False, 0o7755),
        ("o+s", 0o755, False, 0o755),
        ("u=", 0o4755, False, 0o055),
        ("=r", 0o7777, False, 0o1444),
        ("u+rw-x", 0o100, False, 0o600),
        ("-X", 0o711, False, 0o600),
        ("u-X", 0o711, True, 0o611),
    ],
)
def test_modes(text: str, before: int, directory: bool, after: int) -> None:
    """A mode becomes what the reference makes of it."""
    assert after == parse_mode(text).apply(before, directory=directory)


@pytest.mark.parametrize("text", ["0788", "10000", "9", "77777777"])
def test_numbers_that_are_none(text: str) -> None:
    """What looks like a number must be octal and at most 07777."""
    with pytest.raises(ModeError, match=rf"invalid chmod parameter: '{text}'\. it should be octal string"):
        parse_mode(text)


@pytest.mark.parametrize("text", ["rw-r--r--", "u", "u=q", "u=r,", ",", "x+r", "u=r g=r"])
def test_syntax(text: str) -> None:
    """Anything else that is no mode is a syntax error."""
    with pytest.raises(ModeError, match="invalid syntax"):
        parse_mode(text)
