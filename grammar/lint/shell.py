"""The commands of a RUN as far as a rule can tell them: words between operators, and which variables they name.

This is no shell: what depends on running it, such as substitutions and control flow, is marked and not understood.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from grammar.ast import ExecForm, Run

_SPACES = " \t\r"
_OPERATORS = ";&|\n(){}"
_KEYWORDS = frozenset({"if", "then", "elif", "else", "fi", "while", "until", "do", "done", "!", "time", "case", "esac"})
_FLOW = _KEYWORDS - {"!", "time"} | {"for"}
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\+?=")
_PREFIXES = frozenset({"command", "env", "eval", "exec", "nice", "sudo"})
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)([^}]?)|([A-Za-z_][A-Za-z0-9_]*))")
_SET = re.compile(
    r"(?:^|[\s;&|(])(?:(?:export|local|readonly|declare|typeset)\s+(?:-\w+\s+)*)?([A-Za-z_][A-Za-z0-9_]*)\+?="
    r"|(?:^|[\s;&|(])(?:read|for|export|getopts\s+\S+)\s+(?:-\w+\s+)*([A-Za-z_][A-Za-z0-9_]*)"
)
_DEFAULTS = ":-+=?#%/^,@["


class Command(NamedTuple):
    """One simple command: its words without quotes, and without assignments, `sudo` and the like in front."""

    words: tuple[str, ...]

    @property
    def name(self) -> str:
        """The program without its directory."""
        return self.words[0].rpartition("/")[2]


class Script(NamedTuple):
    """The commands of a text; `plain` says that they are all there is: no control flow, substitution or input."""

    text: str
    commands: tuple[Command, ...]
    plain: bool


def script_of(run: Run) -> Script:
    """Return what a RUN executes."""
    if isinstance(run.command, ExecForm):
        args = run.command.args
        if len(args) == 3 and args[0].rpartition("/")[2] in ("sh", "bash", "ash", "dash") and args[1].endswith("c"):
            return parse_script(args[2])
        return Script(" ".join(args), (Command(args),) if args else (), plain=True)
    if run.heredocs:
        # Only a script on its own is read; what is fed to other programs is their business.
        whole = len(run.heredocs) == 1 and run.command.text.strip() == run.heredocs[0].text
        text = "\n".join([run.command.text, *(one.content for one in run.heredocs)])
        if whole and not run.heredocs[0].content.startswith("#!"):
            return parse_script(run.heredocs[0].body)
        return Script(text, parse_script(text).commands, plain=False)
    return parse_script(run.command.text)


def parse_script(text: str) -> Script:
    """Take a script apart."""
    found: list[Command] = []
    words: list[str] = []
    plain = True
    for token, quoted in _tokens(text):
        if quoted or token not in _ENDS:
            words.append(token)
            plain = plain and "$(" not in token and "`" not in token and (quoted or token not in ("<", "<<", "<<<"))
            continue
        plain = plain and token not in ("(", ")", "{", "}")
        plain = _finish(words, found) and plain
    plain = _finish(words, found) and plain
    return Script(text, tuple(found), plain)


_ENDS = frozenset(_OPERATORS)


def _finish(words: list[str], found: list[Command]) -> bool:
    """Take the words of a command; False if it is part of control flow."""
    flow = bool(words) and words[0] in _FLOW
    while words and (words[0] in _KEYWORDS or words[0] in _PREFIXES or _ASSIGNMENT.match(words[0])):
        del words[0]
    if words and not (flow and words[0] == "for"):
        found.append(Command(tuple(words)))
    words.clear()
    return not flow


def _tokens(text: str) -> Iterator[tuple[str, bool]]:
    """Yield words and operators, each with whether it was quoted; redirections of output are left out."""
    at = 0
    text = text.replace("\\\n", "").replace("\\\r\n", "")
    while at < len(text):
        char = text[at]
        if char in _SPACES:
            at += 1
        elif char == "#":
            end = text.find("\n", at)
            at = len(text) if end < 0 else end
        elif char in "{}" and text[at + 1 : at + 2] not in ("", *_SPACES, "\n", ";"):
            word, quoted, at = _word(text, at)
            yield word, quoted
        elif char in _OPERATORS:
            yield char, False
            at += 1
        elif redirection := re.compile(r"\d*>>?(?:&\d|&-|\s*[^\s;&|()<>]+)?|<<<|<<-?|<").match(text, at):
            if "<" in redirection[0]:
                yield redirection[0], False
            at = redirection.end()
        else:
            word, quoted, at = _word(text, at)
            yield word, quoted


def _word(text: str, at: int) -> tuple[str, bool, int]:
    """Read a word; return it without its quotes, whether it had some, and where it ends."""
    out: list[str] = []
    quoted = False
    while at < len(text) and text[at] not in _SPACES + ";&|\n()<>":
        char = text[at]
        if char == "\\":
            out.append(text[at + 1 : at + 2])
            quoted = True
            at += 2
        elif char in "\"'":
            end = _closing(text, at)
            out.append(text[at + 1 : end])
            quoted = True
            at = end + 1
        elif char == "$" and text[at + 1 : at + 2] == "(":
            end = _balanced(text, at + 1)
            out.append(text[at:end])
            at = end
        elif char == "`":
            end = text.find("`", at + 1)
            end = len(text) if end < 0 else end + 1
            out.append(text[at:end])
            at = end
        else:
            out.append(char)
            at += 1
    return "".join(out), quoted, at


def _closing(text: str, at: int) -> int:
    """Where the quotes that open at `at` are closed; the end of the text if they are not."""
    quote = text[at]
    end = at + 1
    while end < len(text) and text[end] != quote:
        end += 2 if text[end] == "\\" and quote == '"' else 1
    return min(end, len(text))


def _balanced(text: str, at: int) -> int:
    """Where the parenthesis that opens at `at` is closed."""
    depth = 0
    while at < len(text):
        if text[at] in "\"'":
            at = _closing(text, at)
        elif text[at] == "(":
            depth += 1
        elif text[at] == ")":
            depth -= 1
            if not depth:
                return at + 1
        at += 1
    return len(text)


def variables(text: str) -> list[str]:
    """Return the variables that a script reads and does not set, in order, each once.

    Those in single quotes are left out, and so are those whose expansion says what to do where they are unset.
    """
    bare = _without_single_quotes(text)
    given = {name for match in _SET.finditer(bare) for name in match.groups() if name}
    found = []
    for match in _VARIABLE.finditer(bare):
        if match.start() and bare[match.start() - 1] == "\\":
            continue
        name = match[1] or match[3]
        if match[1] and match[2] and match[2] in _DEFAULTS:
            continue
        if name not in given:
            found.append(name)
    return list(dict.fromkeys(found))


def _without_single_quotes(text: str) -> str:
    out = []
    at = 0
    double = False
    while at < len(text):
        char = text[at]
        if char == "\\":
            out.append(text[at : at + 2])
            at += 2
            continue
        if char == '"':
            double = not double
        elif char == "'" and not double:
            end = text.find("'", at + 1)
            at = len(text) if end < 0 else end + 1
            continue
        out.append(char)
        at += 1
    return "".join(out)
