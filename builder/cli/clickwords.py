"""Tables of options (`builder/cli/words.py`) as click has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from builder.cli.words import Option

F = TypeVar("F", bound=Callable[..., Any])


def options(table: Sequence[Option]) -> Callable[[F], F]:
    """Return a decorator that gives a command all options of `table`, in their order."""

    def decorate(function: F) -> F:
        for option in reversed(table):
            function = _option(option)(function)
        return function

    return decorate


def _option(option: Option) -> Callable[[F], F]:
    names = (*option.names, option.value)
    metavar = option.metavar or None
    kind: Any
    match option.kind:
        case tuple(choices):
            kind = click.Choice(choices)
        case kind if kind is bool:
            return click.option(*names, is_flag=True, help=option.summary)
        case kind if kind is list:
            return click.option(*names, multiple=True, metavar=metavar, help=option.summary)
        case kind if kind is int and option.least is not None:
            kind = click.IntRange(min=option.least)
        case kind:
            pass
    return click.option(*names, type=kind, default=option.default, metavar=metavar, help=option.summary)
