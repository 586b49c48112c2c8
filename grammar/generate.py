"""Makes `tables.py` from `dockerfile.lark`: `python -m grammar.generate [PATH]`. The only module that imports Lark."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from lark import Lark
from lark.parsers.lalr_analysis import Shift

STARTS = ("from", "list", "exec", "shell", "pairs", "legacy", "healthcheck", "healthcheck_exec")


def load() -> Lark:
    """Return Lark's own parser of the grammar; slow, for making the tables and for testing them."""
    text = Path(__file__).with_name("dockerfile.lark").read_text(encoding="utf-8")
    return Lark(text, start=list(STARTS), parser="lalr", lexer="contextual", maybe_placeholders=False)


def generate() -> str:
    """Return the source of `tables.py`."""
    lark = load()
    frontend: Any = lark.parser
    table = frontend.parser._parse_table  # noqa: SLF001 - Lark has no public name for its tables
    rules: dict[Any, int] = {}
    states: dict[int, dict[str, int]] = {}
    for state, actions in sorted(table.states.items()):
        states[state] = {}
        for symbol, (action, argument) in sorted(actions.items()):
            shift = action is Shift
            states[state][symbol] = argument if shift else ~rules.setdefault(argument, len(rules))
    patterns: list[str] = []
    lexers: dict[int, int] = {}
    for state, lexer in sorted(frontend.lexer.lexers.items()):
        pattern = "|".join(f"(?P<{t.name}>{t.pattern.to_regexp()})" for t in lexer.terminals)
        if pattern not in patterns:
            patterns.append(pattern)
        lexers[state] = patterns.index(pattern)
    lines = [
        '"""Tables of the automaton in `lalr.py`; made from `dockerfile.lark` by `python -m grammar.generate`."""',
        "",
    ]
    lines += ["# fmt: off", "# ruff: noqa: E501", "", "PATTERNS: tuple[str, ...] = ("]
    lines += [f"    {pattern!r}," for pattern in patterns]
    lines += [")", "", "# state -> index of its pattern", f"LEXERS: dict[int, int] = {lexers!r}"]
    lines += ["", "# origin, size, spliced into the parent, which children are kept"]
    lines += ["RULES: tuple[tuple[str, int, bool, tuple[bool, ...]], ...] = ("]
    lines += [f"    {_rule(rule)!r}," for rule in rules]
    lines += [")", "", "# state -> symbol -> state to go to, or ~index of the rule to reduce by"]
    lines += ["STATES: dict[int, dict[str, int]] = {"]
    lines += [f"    {state}: {actions!r}," for state, actions in states.items()]
    lines += ["}", "", f"START_STATES: dict[str, int] = {dict(sorted(table.start_states.items()))!r}"]
    lines += ["", f"END_STATES: dict[str, int] = {dict(sorted(table.end_states.items()))!r}", ""]
    return "\n".join(lines)


def _rule(rule: Any) -> tuple[str, int, bool, tuple[bool, ...]]:
    name = str(rule.origin.name)
    kept = tuple(not (symbol.is_term and symbol.filter_out) for symbol in rule.expansion)
    return name, len(rule.expansion), name.startswith("_"), kept


def main(arguments: list[str]) -> None:
    """Write the tables beside the grammar, or to the path given."""
    target = Path(arguments[0]) if arguments else Path(__file__).with_name("tables.py")
    target.write_text(generate(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
