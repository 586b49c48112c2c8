"""Go's path patterns."""

from __future__ import annotations

import pytest

from builder.glob import BadPattern, compile_pattern, has_wildcards


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("abc", "abc", True),
        ("*", "abc", True),
        ("*c", "abc", True),
        ("a*", "a", True),
        ("a*", "ab/c", False),
        ("a*b?c*x", "abxbbxdbxebxczzx", True),
        ("a*b?c*x", "abxbbxdbxebxczzy", False),
        ("ab[c]", "abc", True),
        ("ab[e-g]", "abc", False),
        ("ab[^c]", "abc", False),
        ("ab[^e-g]", "abc", True),
        ("a\\*b", "a*b", True),
        ("a\\*b", "ab", False),
        ("a?b", "a\u263ab", True),
        ("a[^a]b", "a\u263ab", True),
        ("[\\]a]", "]", True),
        ("[\\-]", "-", True),
        ("[x\\-]", "z", False),
        ("odd[[]1]", "odd[1]", True),
        ("[z-a]", "m", False),
        ("[^z-a]", "m", True),
        ("a.b", "axb", False),
        ("*", "\udcff", True),
        ("?", "\n", True),
        ("[&&~~||--a]", "a", None),
    ],
)
def test_match(pattern: str, name: str, expected: bool | None) -> None:
    """Patterns match as filepath.Match does; None where it calls them malformed."""
    try:
        found: bool | None = compile_pattern(pattern).fullmatch(name) is not None
    except BadPattern:
        found = None

    assert expected is found


@pytest.mark.parametrize("pattern", ["[]a]", "[-]", "[x-]", "[-x]", "[", "[^", "[^bc", "a[", "a\\", "[a\\"])
def test_malformed(pattern: str) -> None:
    """What Go refuses is refused."""
    with pytest.raises(BadPattern):
        compile_pattern(pattern)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("a", False), ("a*", True), ("a\\*", False), ("\\\\*", True), ("[a]", True), ("a]", False)],
)
def test_has_wildcards(pattern: str, expected: bool) -> None:
    """An escaped wildcard is none."""
    assert expected is has_wildcards(pattern)
