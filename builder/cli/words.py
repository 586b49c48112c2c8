"""The quick way to read a command line: by the tables of options that click's commands are made of.

Reading by click takes longer than starting a container or looking up a build, so whatever is plain is read here, with
the same result; on anything else this gives up, and click reads or refuses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Option:
    """One option: its names and the name of its value, then what `--help` says of it.

    `kind` is bool for a flag, list for texts that add up, a tuple for a choice of texts; `least` is the
    smallest number there may be. Only click reads what is not `plain`: the answer needs it anyway.
    """

    __slots__ = ("default", "kind", "least", "metavar", "names", "plain", "summary", "value")

    def __init__(
        self,
        names: tuple[str, ...],
        value: str,
        kind: type[bool | str | int | float | list[str]] | tuple[str, ...],
        metavar: str,
        summary: str,
        *,
        default: str | None = None,
        least: int | None = None,
        plain: bool = True,
    ) -> None:
        self.names = names
        self.value = value
        self.kind = kind
        self.metavar = metavar
        self.summary = summary
        self.default = default
        self.least = least
        self.plain = plain


class Table:
    """What a command takes: its options, and the rest by `place`, the name of its first argument.

    Where options may follow arguments, `default` is the one argument if none is given. Otherwise what follows the first
    one is `args`.
    """

    __slots__ = ("default", "options", "place")

    def __init__(self, options: tuple[Option, ...], place: str, default: str | None = None) -> None:
        self.options = options
        self.place = place
        self.default = default


class Call:
    """A call of a command: the options of pybuild itself, and every value of the command's table."""

    __slots__ = ("command", "debug", "given", "root")

    def __init__(self, command: str, root: str | None, debug: bool, given: dict[str, Any]) -> None:  # noqa: FBT001 - made once
        self.command = command
        self.root = root
        self.debug = debug
        self.given = given


def read_call(words: Sequence[str]) -> Call | None:
    """Return what a command line (without the program) asks of `build` or `run`; None if click has to read it."""
    root: str | None = None
    debug = False
    todo = list(reversed(words))
    while todo and todo[-1] not in ("build", "run"):
        word = todo[-1]
        name, equals, value = word.partition("=")
        if word == "--debug":
            debug = True
            todo.pop()
        elif name == "--root" and (equals or len(todo) > 1):
            todo.pop()
            root = value if equals else todo.pop()
        elif word.startswith("-"):
            todo.append("build")  # options that are not pybuild's own are those of the command that needs no name
        else:
            return None
    if not todo:
        return None
    command = todo.pop()
    given = _read(_table(command), todo)
    return None if given is None else Call(command, root, debug, given)


def _table(command: str) -> Table:
    if command == "run":
        from builder.cli.runwords import TABLE as RUN  # noqa: PLC0415 - one of two

        return RUN
    from builder.cli.buildwords import TABLE as BUILD  # noqa: PLC0415

    return BUILD


def _read(table: Table, todo: list[str]) -> dict[str, Any] | None:
    """Read options and arguments from a reversed list of words."""
    given: dict[str, Any] = {option.value: _absent(option) for option in table.options}
    by_name = {name: option for option in table.options for name in option.names}
    arguments: list[str] = []
    while todo:
        word = todo.pop()
        if word.startswith("-") and word != "-":
            if not _read_option(word, todo, by_name, given):
                return None
            continue
        arguments.append(word)
        if table.default is None:
            given["args"] = tuple(reversed(todo))
            break
    if table.default is not None and not arguments:
        arguments.append(table.default)
    if len(arguments) != 1:
        return None
    given[table.place] = arguments[0]
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def _read_option(word: str, todo: list[str], by_name: dict[str, Option], given: dict[str, Any]) -> bool:
    """Read the option that `word` begins, its value perhaps from `todo`; False if that is not plain."""
    if word.startswith("--"):
        name, equals, value = word.partition("=")
    else:
        name, equals, value = word[:2], word[2:3], word[2:]
    option = by_name.get(name)
    if option is None or not option.plain:
        return False
    if option.kind is not bool:
        return bool(equals or todo) and _take(given, option, value if equals else todo.pop())
    if equals and name != word[:2]:
        return False
    if equals:
        todo.append("-" + value)  # -it is -i -t
    given[option.value] = True
    return True


def _absent(option: Option) -> Any:
    if option.kind is bool:
        return False
    return [] if option.kind is list else option.default


def _take(given: dict[str, Any], option: Option, text: str) -> bool:
    """Note one value; False if it is not of its option's type."""
    value: Any = text
    match option.kind:
        case tuple(choices):
            if text not in choices:
                return False
        case kind if kind is list:
            pass
        case kind:
            try:
                value = kind(text)
            except ValueError:
                return False
            if option.least is not None and value < option.least:
                return False
    if isinstance(given[option.value], list):
        given[option.value].append(value)
    else:
        given[option.value] = value
    return True
