"""The text of a step as progress shows it, in the reference's words: people and tools search logs for it."""

from __future__ import annotations

from collections.abc import Mapping

import grammar
from builder.ops import Op, RunOp, SecretMount


def step_text(instruction: grammar.Instruction, op: Op, env: Mapping[str, str], *, escape: str) -> str:
    """Return the instruction on one line, the variables of `env` replaced; text with a fault stays as it is written.

    Of a RUN quotes and unset variables stay, variables that hold secrets are masked, and the first line of a script
    is told, too.
    """
    text = instruction.original.strip()
    try:
        if isinstance(instruction, grammar.Run) and isinstance(op, RunOp):
            if (script := sole_script(instruction)) is not None:
                text += f" ({_summary(script.content)})"
            masked = {mount.env: "****" for mount in op.mounts if isinstance(mount, SecretMount) and mount.env}
            text = grammar.expand_shown(text, {**env, **masked} if masked else env, escape=escape)
        else:
            text = grammar.expand(text, env, escape=escape).text
    except grammar.ExpandError:
        pass
    keyword, blank, rest = text.partition(" ")
    return keyword.upper() + blank + rest


def sole_script(instruction: grammar.Run) -> grammar.Heredoc | None:
    """Return the heredoc that is all of a RUN's command, if one is."""
    command, heredocs = instruction.command, instruction.heredocs
    if len(heredocs) == 1 and isinstance(command, grammar.ShellForm) and command.text.strip() == heredocs[0].text:
        return heredocs[0]
    return None


def _summary(script: str) -> str:
    first, *more = script.strip().split("\n")
    return first.rstrip("\r") + ("..." if more else "")
