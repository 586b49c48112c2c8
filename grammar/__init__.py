"""Dockerfiles as text: parsed, resolved, expanded and formatted. Knows nothing of images, contexts or containers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grammar.ast import (
    Add,
    Arg,
    ArgPair,
    Ast,
    Cmd,
    Comment,
    Copy,
    Entrypoint,
    Env,
    ExecForm,
    Expose,
    Flag,
    From,
    Healthcheck,
    Heredoc,
    Instruction,
    Label,
    Maintainer,
    Onbuild,
    Pair,
    Run,
    Shell,
    ShellForm,
    Statement,
    Stopsignal,
    User,
    Volume,
    Word,
    Workdir,
)
from grammar.diagnostics import Diagnostic, Position, Severity, Span
from grammar.errors import (
    DeviceError,
    ExpandError,
    GrammarError,
    LocatedGrammarError,
    MountError,
    ParseError,
    ResolveError,
)
from grammar.expand import Expansion, expand, expand_heredoc, expand_shown, expand_words
from grammar.format import format_ast, format_instruction
from grammar.mount import Mount, parse_mount
from grammar.node import Node
from grammar.parse import parse, parse_instruction, parse_nodes
from grammar.resolve import Dockerfile, Stage, resolve

if TYPE_CHECKING:
    from grammar.device import Device, parse_device
    from grammar.layout import LayoutError, tidy

__all__ = [
    "Add",
    "Arg",
    "ArgPair",
    "Ast",
    "Cmd",
    "Comment",
    "Copy",
    "Device",
    "DeviceError",
    "Diagnostic",
    "Dockerfile",
    "Entrypoint",
    "Env",
    "ExecForm",
    "ExpandError",
    "Expansion",
    "Expose",
    "Flag",
    "From",
    "GrammarError",
    "Healthcheck",
    "Heredoc",
    "Instruction",
    "Label",
    "LayoutError",
    "LocatedGrammarError",
    "Maintainer",
    "Mount",
    "MountError",
    "Node",
    "Onbuild",
    "Pair",
    "ParseError",
    "Position",
    "ResolveError",
    "Run",
    "Severity",
    "Shell",
    "ShellForm",
    "Span",
    "Stage",
    "Statement",
    "Stopsignal",
    "User",
    "Volume",
    "Word",
    "Workdir",
    "expand",
    "expand_heredoc",
    "expand_shown",
    "expand_words",
    "format_ast",
    "format_instruction",
    "parse",
    "parse_device",
    "parse_instruction",
    "parse_mount",
    "parse_nodes",
    "resolve",
    "tidy",
]


def __getattr__(name: str) -> object:
    if name in ("LayoutError", "tidy"):  # no build formats
        from grammar import layout  # noqa: PLC0415

        return getattr(layout, name)
    if name in ("Device", "parse_device"):  # few commands need a device
        from grammar import device  # noqa: PLC0415

        return getattr(device, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
