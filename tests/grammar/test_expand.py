"""Expansion of words, form by form."""

from __future__ import annotations

import pytest

from grammar import ExpandError, expand, expand_heredoc, expand_shown, expand_words
from grammar.pattern import replace, trim_prefix, trim_suffix

ENV = {"PWD": "/home", "NULL": "", "한": "글", "KOREAN": "한국어", "FOO": "xxyy", "T": "/tmp/foo.txt", "L": "a b  c"}

WORDS = [
    ("hello", "hello"),
    ("he'll'o", "hello"),
    ("he'llo", None),
    ('he"ll"o', "hello"),
    (r"he\'llo", "he'llo"),
    (r"he\\llo", r"he\llo"),
    ("abc\\", "abc"),
    ('"abc\\', None),
    (r'"a\bc\"d"', r'a\bc"d'),
    (r"'a\b'", r"a\b"),
    ("''", ""),
    ("$", "$"),
    ("a$", "a$"),
    ("$.$x.", "$.."),
    ("he$PWD", "he/home"),
    ("he$$PWD", "hePWD"),
    (r"he\$PWD", "he$PWD"),
    ("'he$PWD'", "he$PWD"),
    ('"he$PWD"', "he/home"),
    (r'"he\$PWD"', "he$PWD"),
    ("$1b$12x$@$*$#$?$-$!", "bx"),
    ("${PWD}x", "/homex"),
    ("$PWDx", ""),
    ("$KOREAN$한", "한국어글"),
    ("${NOT-w}|${NULL-w}|${PWD-w}", "w||/home"),
    ("${NOT:-w}|${NULL:-w}|${PWD:-w}", "w|w|/home"),
    ("${NOT+w}|${NULL+w}|${PWD+w}", "|w|w"),
    ("${NOT:+w}|${NULL:+w}|${PWD:+w}", "||w"),
    ("${NOT:-${NULL:-$PWD}}", "/home"),
    ("${NOT:-'a b'\"$PWD\"\\}}", "a b/home}"),
    ("${PWD?no}|${NULL?no}|${PWD:?no}", "/home||/home"),
    ("${NULL:?no}", None),
    ("${NOT?}", None),
    ("${FOO#x}|${FOO#*y}|${FOO##*y}", "xyy|y|"),
    ("${FOO%y}|${FOO%x*}|${FOO%%x*}", "xxy|x|"),
    ("${NOT#x}|${NOT%x}|${NOT/x/y}", "||"),
    (r"${FOO#\x}", None),
    ("${T/tmp/var}|${T//o/0}|${T//\\//-}", "/var/foo.txt|/tmp/f00.txt|-tmp-foo.txt"),
    ("${FOO/x/$PWD}", "/homexyy"),
    ("${T/*./}", "txt"),
    ("${FOO//y}", None),
    ("${FOO///}", "xxyy"),
    ("${}", None),
    ("${:-a}", None),
    ("${{x}", None),
    ("${FOO", None),
    ("${FOO:-a", None),
    ("${FOO=a}", None),
    ("${FOO:=a}", None),
    ("${FOO:#x}", None),
    ("${FOO:%x}", None),
    ("${FOO^^}", None),
    ("${-}${1}", ""),
]


@pytest.mark.parametrize(("word", "expected"), WORDS)
def test_words(word: str, expected: str | None) -> None:
    """Each form gives what the reference gives; None stands for an error."""
    if expected is None:
        with pytest.raises(ExpandError):
            expand(word, ENV)
    else:
        assert expand(word, ENV).text == expected


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("${", "failed to process \"${\": syntax error: missing '}'"),
        ("${}", 'failed to process "${}": syntax error: bad substitution'),
        ("${b^^}", 'failed to process "${b^^}": unsupported modifier (^) in substitution'),
        ("${b:?do it}", 'failed to process "${b:?do it}": b: do it'),
        ("${b?}", 'failed to process "${b?}": b: is not allowed to be unset'),
        ("${NULL:?}", 'failed to process "${NULL:?}": NULL: is not allowed to be empty'),
        ('"a', 'failed to process "\\"a": unexpected end of statement while looking for matching double-quote'),
        ("'a", 'failed to process "\'a": unexpected end of statement while looking for matching single-quote'),
        ("${FOO/x}", "failed to process \"${FOO/x}\": syntax error: missing '/' in ${}"),
        (
            "${FOO#\\x}",
            "failed to process \"${FOO#\\\\x}\": invalid pattern (\\x) in substitution: invalid escape '\\x'",
        ),
    ],
)
def test_messages(word: str, message: str) -> None:
    """Errors name the word and say what is wrong with it, and what to do."""
    with pytest.raises(ExpandError) as caught:
        expand(word, ENV)

    assert caught.value.message == message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("a b", ("a", "b")),
        (" a\t b ", ("a", "b")),
        ("'a b' c", ("a b", "c")),
        ('"" c', ("c",)),
        ("$L", ("a", "b", "c")),
        ('"$L"', ("a b  c",)),
        ("x$L", ("xa", "b", "c")),
        (r"a\ b", ("a b",)),
        ("<< a b", ("<< a", "b")),
        ("$NOT", ()),
    ],
)
def test_splitting(word: str, expected: tuple[str, ...]) -> None:
    """Blanks outside quotes split, those of variables too."""
    assert expand_words(word, ENV).words == expected


def test_the_other_escape_character() -> None:
    """With a backtick backslashes are plain, except in patterns."""
    assert expand('C:\\x`$PWD`` "`""', ENV, escape="`").text == 'C:\\x$PWD` "'
    assert expand("${T#\\/}", ENV, escape="`").text == "tmp/foo.txt"


def test_heredoc_bodies() -> None:
    """Quotes are text, a backslash before a newline goes, the newline stays."""
    body = "'$PWD' \"$PWD\" \\$PWD \\\\ $(x) `y` $. a\\\nb\n"

    assert expand_heredoc(body, ENV).text == "'/home' \"/home\" $PWD \\ $(x) `y` $. a\nb\n"


def test_names_are_told() -> None:
    """What was used and what was missing is listed, names inside defaults included."""
    expansion = expand("$PWD ${NOT:-$ALSO_NOT} ${NULL+$FOO}", ENV)

    assert expansion.used == {"PWD", "NULL", "FOO"}
    assert expansion.unset == {"NOT", "ALSO_NOT"}


def test_deep_nesting_is_an_error() -> None:
    """A hostile word ends in an error of its own, not in Python's."""
    with pytest.raises(ExpandError, match="nested too deeply"):
        expand("${a:-" * 20000, {})


def test_patterns() -> None:
    """Shortest and longest matches at both ends, and empty matches as Go counts them."""
    assert trim_prefix("a*b*c", r"*\*", longest=False) == "b*c"
    assert trim_prefix("a*b*c", r"*\*", longest=True) == "c"
    assert trim_suffix("a*b*c", r"\**", longest=False) == "a*b"
    assert trim_suffix("a*b*c", r"\**", longest=True) == "a"
    assert trim_suffix("[x]", "?]", longest=False) == "["
    assert replace("abc", "*", "-", everywhere=True) == "-"
    assert replace("ab", "", "-", everywhere=True) == "-a-b-"
    assert replace("ab", "", "-", everywhere=False) == "-ab"


def test_expand_for_people() -> None:
    """A command keeps its quotes and what is not set; a fault is one here, too."""
    assert expand_shown("a \"$PWD\" '$PWD' ${NOPE} $NOPE ${NOPE:-x} \\$PWD", ENV) == (
        "a \"/home\" '$PWD' ${NOPE} $NOPE ${NOPE:-x} $PWD"
    )
    assert expand_shown("'left open", ENV) == "'left open"
    with pytest.raises(ExpandError, match="matching single-quote"):
        expand_shown("$PWD 'left open", ENV)
