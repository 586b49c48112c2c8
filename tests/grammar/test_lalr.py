"""The shipped tables are those of the grammar, and run as Lark itself runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lark import Token, Tree
from lark.exceptions import UnexpectedInput

import grammar
from grammar import generate, lalr

TEXTS = {
    "from": ["a", "--platform=x a AS b", "a as", "as as as", "a b", "a as b c", "-- a", ""],
    "list": ["a b  c", '--x="a b" c', "--a --b c", "-- --c", "--", "", '["a", b]'],
    "exec": [
        '["a", "b"]',
        "[]",
        '[1, true, null, {"a": [[]]}]',
        '["a",]',
        '["a"] x',
        "['a']",
        '["\\x"]',
        '--f [ "a" ]',
    ],
    "shell": ["x y  z", "--a=b  x", "--a 'x", "-- --x", "--'a b'c d", ""],
    "pairs": [
        "a=b",
        "a= b=c",
        "a=\"b c\" d='e f'",
        'x "y z"=1',
        "a=b\\ c",
        'a="b',
        "a=\\",
        "a",
        "\xa0a=b\xa0c=d",
        "=a",
    ],
    "legacy": ["a b c", "a", "'a b' c"],
    "healthcheck": ["CMD a b", "NONE", "--interval=1s CMD x", ""],
    "healthcheck_exec": ['CMD ["a"]', "CMD a"],
}


def _plain(tree: Any) -> list[Any]:
    """Lark's tree in the shape of ours."""
    return [
        (child.type, child.start_pos, child.end_pos) if isinstance(child, Token) else (child.data.value, _plain(child))
        for child in tree.children
    ]


@pytest.fixture(scope="module")
def lark() -> Any:
    """Lark's own parser of the grammar; making it is slow."""
    return generate.load()


def test_tables_are_up_to_date() -> None:
    """`tables.py` is what `python -m grammar.generate` writes for `dockerfile.lark`."""
    assert Path(grammar.__file__).with_name("tables.py").read_text(encoding="utf-8") == generate.generate()


@pytest.mark.parametrize("start", generate.STARTS)
def test_trees_are_those_of_lark(lark: Any, start: str) -> None:
    """Every text has the same tree in both, or none in both."""
    for text in [text for texts in TEXTS.values() for text in texts]:
        try:
            expected = lark.parse(text, start=start)
        except UnexpectedInput:
            with pytest.raises(lalr.NoMatchError):
                lalr.parse(start, text)
        else:
            assert isinstance(expected, Tree)
            assert lalr.parse(start, text) == _plain(expected), (start, text)


def test_the_offset_of_a_misfit() -> None:
    """A text that does not fit says where."""
    with pytest.raises(lalr.NoMatchError) as caught:
        lalr.parse("exec", '["a", x]')

    assert caught.value.offset == 6
