"""Prints a syntax tree back to source; parsing the result gives an equal tree.

Every instruction becomes one logical line; comments, heredocs and single empty lines between instructions are kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import assert_never

from grammar.ast import (
    Add,
    Arg,
    Ast,
    Cmd,
    Comment,
    Copy,
    Entrypoint,
    Env,
    ExecForm,
    Expose,
    From,
    Healthcheck,
    Heredoc,
    Instruction,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    ShellForm,
    Stopsignal,
    User,
    Volume,
    Word,
    Workdir,
)
from grammar.source import CONTINUED
from grammar.text import BLANKS

_JSON_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}


def format_ast(ast: Ast) -> str:
    """Return the source of a tree, with a newline at its end."""
    lines = [f"# {key}={value}" for key, value in ast.directives.items()]
    comments = list(ast.comments)
    last = len(lines)
    if comments:
        # Behind an empty line no comment is taken for a directive.
        if lines or "=" in comments[0].text:
            lines.append("")
        last = 0
    for instruction in ast.instructions:
        above = _take(comments, instruction.span.start.line)
        inside = _take(comments, instruction.span.end.line)
        count = _about(instruction, above)
        for comment in above[:count]:
            _gap(lines, last, comment.span.start.line)
            lines.append(_comment(comment))
            last = comment.span.end.line
        if count < len(above):
            # The others stood behind a line that says nothing but that it goes on.
            lines += [ast.escape, *(_comment(comment) for comment in above[count:])]
            last = above[-1].span.end.line
        _gap(lines, last, instruction.span.start.line)
        lines.append(_printed(instruction, inside, ast.escape, last=instruction is ast.instructions[-1]))
        last = instruction.span.end.line
    for comment in comments:
        _gap(lines, last, comment.span.start.line)
        lines.append(_comment(comment))
        last = comment.span.end.line
    return "\n".join(lines) + "\n"


def format_instruction(instruction: Instruction) -> str:
    """Return the source of one instruction without its comments; heredoc bodies follow on lines of their own."""
    keyword, rest, heredocs = _parts(instruction)
    return f"{keyword} {rest}" + _bodies(heredocs) if rest else keyword


def _take(comments: list[Comment], line: int) -> list[Comment]:
    """Remove and return the comments above a line."""
    count = next((i for i, comment in enumerate(comments) if comment.span.start.line >= line), len(comments))
    taken = comments[:count]
    del comments[:count]
    return taken


def _about(instruction: Instruction, above: list[Comment]) -> int:
    """How many of the comments above an instruction stand on lines of their own: those it takes for its are of them."""
    own = list(instruction.comments)
    count, texts = -1, list[str]()
    for at, comment in enumerate([*above, None]):
        if len(texts) == len(own) and texts == own:
            count = at
        if comment is not None and comment.text:
            texts.append(comment.text)
        else:
            # An empty comment ends what is said about the next instruction.
            texts.clear()
    return len(above) if count < 0 else count


def _gap(lines: list[str], last: int, line: int) -> None:
    if last and line > last + 1:
        lines.append("")


def _comment(comment: Comment) -> str:
    return f"# {comment.text}".rstrip(" ")


def _printed(instruction: Instruction, inside: list[Comment], escape: str, *, last: bool) -> str:
    """The instruction with the comments of its continued lines behind its keyword, where they still are inside it."""
    keyword, rest, heredocs = _parts(instruction)
    text = f"{keyword} {rest}" if rest else keyword
    if inside:
        # What begins with # would be a comment itself on a line of its own.
        first = next((at for at, c in enumerate(rest) if c != "#" and not c.isspace()), len(rest))
        head = f"{keyword} {rest[:first]}{escape}\n"
        text = head + "".join(f"{_comment(comment)}\n" for comment in inside) + rest[first:]
    continued = CONTINUED[escape]
    if isinstance(instruction, Onbuild):
        # Its text keeps the blanks at its end, and only at the end of a file can it look continued.
        if last and (continued.search(text) or text.endswith("\r")):
            text += f" {escape}" if text.endswith(escape) else escape
        return text
    if isinstance(instruction, Env | Label | Arg) and text.endswith(tuple(BLANKS)):
        # A value ends in a blank where a quote is not closed, or the blank is escaped, before what means nothing here.
        text += escape
    # Text ends in an escape character where a blank stood behind it that is none to a continuation.
    return text + ("\f" if continued.search(text) else "") + _bodies(heredocs)


def _bodies(heredocs: tuple[Heredoc, ...]) -> str:
    return "".join(f"\n{heredoc.content}{heredoc.name}" for heredoc in heredocs)


def _parts(instruction: Instruction) -> tuple[str, str, tuple[Heredoc, ...]]:
    """Keyword, the rest of the logical line, and the heredocs of an instruction."""
    keyword = instruction.keyword.upper()
    if isinstance(instruction, Onbuild):
        # The text of a trigger is stored in images as it was written, bodies of heredocs included.
        return keyword, instruction.text, ()
    if isinstance(instruction, Copy | Add) and "<<" in instruction.original:
        # What opens a heredoc depends on blanks, quotes and escapes between words, which therefore stay.
        return keyword, instruction.original[len(keyword) :].lstrip(" \t"), instruction.heredocs
    rest, heredocs = _arguments(instruction)
    if rest.startswith("--"):
        rest = f"-- {rest}"
    return keyword, " ".join([*(flag.text for flag in instruction.flags), *([rest] if rest else [])]), heredocs


def _arguments(instruction: Instruction) -> tuple[str, tuple[Heredoc, ...]]:
    heredocs: tuple[Heredoc, ...] = ()
    match instruction:
        case From(image=image, name=name):
            rest = f"{image.text} AS {name.text}" if name else image.text
        case Arg(pairs=declared):
            rest = " ".join(p.name.text if p.value is None else f"{p.name.text}={p.value.text}" for p in declared)
        case Env(pairs=pairs, legacy=legacy) | Label(pairs=pairs, legacy=legacy):
            rest = " ".join(p.key.text + (_between(p.key) if legacy else "=") + p.value.text for p in pairs)
        case Run(command=command, heredocs=heredocs):
            rest = _command(command)
        case Copy(heredocs=heredocs) | Add(heredocs=heredocs):
            rest = _sources(instruction)
        case Cmd(command=command) | Entrypoint(command=command):
            rest = _command(command)
        case Shell(args=args):
            rest = _json(args)
        case Healthcheck(test=test):
            rest = "NONE" if test is None else f"CMD {_command(test)}"
        case Workdir(path=word) | User(name=word) | Stopsignal(signal=word):
            rest = word.text
        case Volume(paths=words, json_form=json_form):
            rest = _words(words, json_form=json_form)
        case Expose(ports=words):
            rest = " ".join(word.text for word in words)
        case Maintainer(name=author):
            rest = author
        case Onbuild(text=text):
            rest = text
        case _:
            assert_never(instruction)
    return rest, heredocs


def _between(key: Word) -> str:
    """What separates a key from its value in the old form: after an escape character one blank would not."""
    return "  " if key.text.endswith(("\\", "`")) else " "


def _sources(instruction: Copy | Add) -> str:
    if instruction.json_form:
        return _words((*instruction.sources, instruction.destination), json_form=True)
    openings = (heredoc.text for heredoc in instruction.heredocs)
    return _apart([*(word.text for word in instruction.sources), *openings, instruction.destination.text])


def _command(command: ShellForm | ExecForm) -> str:
    return command.text if isinstance(command, ShellForm) else _json(command.args)


def _words(words: Iterable[Word], *, json_form: bool) -> str:
    texts = [word.text for word in words]
    return _json(texts) if json_form else _apart(texts)


def _apart(texts: list[str]) -> str:
    """Words with blanks between them: such as JSON does not know, where they would be taken for a JSON list."""
    text = " ".join(texts)
    if text.startswith("[") and text.endswith("]"):
        import json  # noqa: PLC0415 - hardly ever needed

        # What nests too deeply for this reader may still be a list for the parser.
        with contextlib.suppress(RecursionError):
            try:
                json.loads(text, parse_int=str, parse_float=str)
            except ValueError:
                return text
        return "\v".join(texts)
    return text


def _json(texts: Iterable[str]) -> str:
    return f"[{', '.join(_json_string(text) for text in texts)}]"


def _json_string(text: str) -> str:
    escaped = (_JSON_ESCAPES.get(c) or (c if c >= " " else f"\\u{ord(c):04x}") for c in text)
    return f'"{"".join(escaped)}"'
