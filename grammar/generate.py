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
    numbers = _numbers(table)
    rules: dict[Any, int] = {}
    states: dict[int, dict[str, int]] = {}
    patterns: list[str] = []
    lexers: dict[int, int] = {}
    for state, number in numbers.items():
        states[number] = {
            symbol: numbers[argument] if action is Shift else ~rules.setdefault(argument, len(rules))
            for symbol, (action, argument) in sorted(table.states[state].items())
        }
        terminals = frontend.lexer.lexers[state].terminals
        pattern = "|".join(f"(?P<{t.name}>{t.pattern.to_regexp()})" for t in terminals)
        if pattern not in patterns:
            patterns.append(pattern)
        lexers[number] = patterns.index(pattern)
    starts = {name: numbers[state] for name, state in sorted(table.start_states.items())}
    ends = {name: numbers[state] for name, state in sorted(table.end_states.items())}
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
    lines += ["}", "", f"START_STATES: dict[str, int] = {starts!r}"]
    lines += ["", f"END_STATES: dict[str, int] = {ends!r}", ""]
    return "\n".join(lines)


def _numbers(table: Any) -> dict[int, int]:
    """Numbers for the states in the order they are reached; Lark numbers them anew each time."""
    order = [table.start_states[name] for name in sorted(table.start_states)]
    for state in order:
        for _, (action, argument) in sorted(table.states[state].items()):
            if action is Shift and argument not in order:
                order.append(argument)
    return {state: number for number, state in enumerate(order)}


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
