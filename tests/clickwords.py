"""What click makes of command lines, beside the quick reader of plain ones."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import click

from builder.cli.app import app
from builder.cli.words import Option


def by_click(command: click.Command, words: Sequence[str]) -> dict[str, Any] | None:
    """Return the parameters that click reads from the words after the command's name, None if it refuses them."""
    # Below the group, whose settings a command keeps once it has been asked for its help option.
    parent = click.Context(app, **app.context_settings)
    try:
        return command.make_context(command.name, list(words), parent=parent).params
    except (click.ClickException, click.exceptions.Exit):
        return None


def random_lines(
    options: Sequence[Option], values: Sequence[str], *, seed: int, most_values: int
) -> Iterator[list[str]]:
    """Yield 3,000 lines of up to four options with any of `values`, and up to `most_values` of these behind them."""
    rng = random.Random(seed)
    names = [name for option in options for name in option.names]
    for _ in range(3000):
        words: list[str] = []
        for _ in range(rng.randrange(5)):
            name = rng.choice(names)
            value = rng.choice(values)
            words += rng.choice(([name], [name, value], [f"{name}={value}"], [f"{name}{value}"]))
        yield words + rng.sample(values, rng.randrange(most_values + 1))
