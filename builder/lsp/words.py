"""What an editor shows about instructions, flags, stages and variables, as Markdown."""

from __future__ import annotations

import re

from builder.lsp.symbols import Stage, Variable
from grammar.manual import INSTRUCTIONS, Option


def page(name: str) -> str:
    """Return what there is to say about an instruction."""
    found = INSTRUCTIONS[name]
    forms = "\n".join(found.forms)
    parts = [_block(forms), found.summary, found.text]
    if found.flags:
        parts.append(
            "\n".join(f"- {_head(f'--{flag}', option)}: {option.text}" for flag, option in found.flags.items())
        )
    return "\n\n".join(parts)


def option_page(name: str, option: Option) -> str:
    """Return what there is to say about a flag or a key, given how it is written."""
    text = f"{_head(name, option)}: {option.text}"
    if option.values:
        text += "\n\nValues: " + ", ".join(f"`{value}`" for value in option.values) + "."
    return text


def _head(name: str, option: Option) -> str:
    return f"`{name}={option.value}`" if option.value else f"`{name}`"


def describe_stage(stage: Stage) -> str:
    """Return what there is to say about a stage."""
    name = f" AS {stage.name}" if stage.name else ""
    parts = [_block(f"FROM {stage.image}{name}")]
    if stage.description:
        parts.append(_escaped(stage.description))
    first, last = stage.lines
    parts.append(f"Stage {stage.number}, lines {first} to {last}.")
    return "\n\n".join(parts)


def describe_variable(variable: Variable) -> str:
    """Return what there is to say about a variable: its declaration, its value and where both come from."""
    if variable.kind == "automatic":
        return f"`{variable.name}`: {variable.description}"
    value = "" if variable.value is None else f"={variable.value}"
    parts = [_block(f"{variable.kind} {variable.name}{value}")]
    if variable.description:
        parts.append(_escaped(variable.description))
    if variable.known is not None and variable.known != variable.value:
        parts.append(f"Its value is {_code(variable.known)}." if variable.known else "Its value is empty.")
    outer = variable.outer
    if outer is not None and outer.kind == "automatic":
        parts.append(outer.description)
    elif outer is not None and outer.span is not None:
        parts.append(f"Taken over from the ARG in line {outer.span.start.line}.")
        if outer.description and not variable.description:
            parts.append(_escaped(outer.description))
    elif variable.kind == "ARG" and variable.value is None:
        parts.append("No default: it is unset unless the build is given `--build-arg`.")
    if variable.span is not None:
        parts.append(f"Declared in line {variable.span.start.line}.")
    return "\n\n".join(parts)


def _code(text: str) -> str:
    """Text as it is; Markdown wants a fence that is longer than any run of backticks in it."""
    fence = "`" * (_backticks(text) + 1)
    pad = " " if "`" in text else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def _block(text: str) -> str:
    """Lines of a Dockerfile as they are."""
    fence = "`" * max(_backticks(text) + 1, 3)
    return f"{fence}dockerfile\n{text}\n{fence}"


def _backticks(text: str) -> int:
    """The length of the longest run of backticks."""
    return max((len(run) for run in re.findall("`+", text)), default=0)


def _escaped(text: str) -> str:
    """A line of a comment as plain text."""
    return "".join(f"\\{char}" if char in r"\`*_{}[]<>()#+-.!|" else char for char in text)
