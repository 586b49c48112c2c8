"""Makes typed instructions of nodes, and refuses those that mean nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from grammar import ast
from grammar.ast import ExecForm, Instruction, ShellForm, Word
from grammar.diagnostics import Span
from grammar.duration import parse_duration
from grammar.errors import DeviceError
from grammar.flags import Flags
from grammar.heredoc import opening
from grammar.node import Fault, Node
from grammar.text import WIDE_BLANKS, did_you_mean, quote

STAGE_NAME = re.compile(r"[a-z][a-z0-9._-]*")
_ONBUILD = re.compile(r"[\t\n\f\r ]*ONBUILD[\t\n\f\r ]*", re.IGNORECASE)  # the blanks of Go's \s
_MILLISECOND = 10**6
_COUNTED_FIRST = frozenset({"add", "copy", "expose", "from", "maintainer", "onbuild", "user", "volume", "workdir"})
_NETWORKS = ("default", "host", "none")
_SECURITY = ("insecure", "sandbox")


def transform(node: Node) -> Instruction:
    """Return the instruction that a node says; Fault where it says none."""
    common: dict[str, Any] = {
        "keyword": node.keyword,
        "flags": node.flags,
        "span": Span(node.word.span.start, _end(node)),
        "original": node.line.text[node.start :],
        "comments": node.line.comments,
    }
    make = _MAKERS[node.keyword]
    try:
        flags = Flags(node)
    except Fault:
        if node.keyword in _COUNTED_FIRST:
            # A Fault of the arguments is told before that of the flags, as in the reference.
            make(node, Flags(), common)
        raise
    return make(node, flags, common)


def _end(node: Node) -> Any:
    end = node.line.span(0, len(node.line.text)).end
    if not node.heredocs:
        return end
    # The terminator has no character of the logical line; its line is the last.
    return end._replace(line=node.line.last, column=len(node.heredocs[-1].name) + 1)


def _from(node: Node, flags: Flags, common: dict[str, Any]) -> ast.From:
    words = node.words
    if len(words) not in (1, 3) or (len(words) == 3 and words[1].text.lower() != "as"):
        raise Fault(
            "from-arguments", "FROM requires either one or three arguments", node.span, "write FROM image [AS name]"
        )
    name = words[2] if len(words) == 3 else None
    if name is not None and not STAGE_NAME.fullmatch(name.text.lower()):
        raise Fault(
            "stage-name",
            f"invalid name for build stage: {quote(name.text)}, name can't start with a number or contain symbols",
            name.span,
            "use letters, digits, - _ and . after a first letter",
        )
    return ast.From(image=words[0], platform=flags.word("platform"), name=name, **common)


def _arg(node: Node, _flags: Flags, common: dict[str, Any]) -> ast.Arg:
    _named(node)
    return ast.Arg(pairs=tuple(ast.ArgPair(name=name, value=value) for name, value in node.pairs), **common)


def _pairs(node: Node) -> tuple[ast.Pair, ...]:
    _named(node)
    return tuple(ast.Pair(key=key, value=value) for key, value in node.pairs if value is not None)


def _named(node: Node) -> None:
    keyword = node.keyword.upper()
    _at_least_one(node, bool(node.pairs))
    for key, _ in node.pairs:
        if not key.text:
            raise Fault("blank-name", f"{keyword} names can not be blank", key.span, "write name=value")


def _env(node: Node, _flags: Flags, common: dict[str, Any]) -> ast.Env:
    return ast.Env(pairs=_pairs(node), legacy=node.legacy, **common)


def _label(node: Node, _flags: Flags, common: dict[str, Any]) -> ast.Label:
    return ast.Label(pairs=_pairs(node), legacy=node.legacy, **common)


def _command(node: Node, words: list[Word]) -> ShellForm | ExecForm:
    if node.json:
        return ExecForm(args=tuple(word.text for word in words))
    return ShellForm(text=words[0].text if words else "")


def _run(node: Node, flags: Flags, common: dict[str, Any]) -> ast.Run:
    network, security = flags.word("network"), flags.word("security")
    if network is not None:
        _choice("network mode", "invalid network mode {}", network, _NETWORKS)
    if security is not None:
        _choice("security mode", "security {} is not valid", security, _SECURITY)
    mounts, devices = flags.words("mount"), flags.words("device")
    if devices:
        _check_devices(devices)
    return ast.Run(
        command=_command(node, node.words),
        heredocs=node.heredocs,
        mounts=mounts,
        network=network.text if network else None,
        security=security.text if security else None,
        devices=devices,
        **common,
    )


def _check_devices(words: Iterable[Word]) -> None:
    from grammar.device import parse_device  # noqa: PLC0415 - few commands need a device

    for word in words:
        try:
            parse_device(word.text)
        except DeviceError as error:
            raise Fault("device", error.message, word.span, error.hint) from None


def _choice(what: str, message: str, word: Word, known: tuple[str, ...]) -> None:
    if word.text not in known:
        code = what.replace(" ", "-")
        near = did_you_mean(word.text, known)
        raise Fault(code, message.format(quote(word.text)) + near, word.span, f"use one of {', '.join(known)}")


def _sources(node: Node) -> dict[str, Any]:
    keyword = node.keyword.upper()
    if len(node.words) < 2:
        raise Fault(
            "destination",
            f"{keyword} requires at least two arguments, but only one was provided. "
            "Destination could not be determined",
            node.span,
            f"write {keyword} source destination",
        )
    *sources, destination = node.words
    if not node.json:
        if opening(destination.text):
            message = f"{keyword} cannot accept a heredoc as a destination"
            raise Fault("destination", message, destination.span, "add the path of the file to write")
        sources = [word for word in sources if "<<" not in word.text or opening(word.text) is None]
    return {
        "sources": tuple(sources),
        "destination": destination,
        "heredocs": node.heredocs,
        "json_form": node.json,
    }


def _copy(node: Node, flags: Flags, common: dict[str, Any]) -> ast.Copy:
    return ast.Copy(
        from_=flags.name("from"),
        chown=flags.word("chown"),
        chmod=flags.word("chmod"),
        link=flags.switch("link"),
        parents=flags.switch("parents"),
        excludes=flags.words("exclude"),
        **_sources(node),
        **common,
    )


def _add(node: Node, flags: Flags, common: dict[str, Any]) -> ast.Add:
    return ast.Add(
        chown=flags.word("chown"),
        chmod=flags.word("chmod"),
        link=flags.switch("link"),
        checksum=flags.word("checksum"),
        keep_git_dir=flags.switch("keep-git-dir"),
        unpack=flags.switch("unpack"),
        excludes=flags.words("exclude"),
        **_sources(node),
        **common,
    )


def _cmd(node: Node, _flags: Flags, common: dict[str, Any]) -> ast.Cmd:
    return ast.Cmd(command=_command(node, node.words), **common)


def _entrypoint(node: Node, _flags: Flags, common: dict[str, Any]) -> ast.Entrypoint:
    return ast.Entrypoint(command=_command(node, node.words), **common)


def _shell(node: Node, _flags: Flags, common: dict[str, Any]) -> ast.Shell:
    _at_least_one(node, bool(node.words))
    if not node.json:
        raise Fault(
            "shell-form",
            "SHELL requires the arguments to be in JSON form",
            node.span,
            'write SHELL ["/bin/sh", "-c"]',
        )
    return ast.Shell(args=tuple(word.text for word in node.words), **common)


def _healthcheck(node: Node, flags: Flags, common: dict[str, Any]) -> ast.Healthcheck:
    _at_least_one(node, bool(node.words))
    kind, *command = node.words
    test = None
    if kind.text.upper() == "NONE":
        if command:
            message = "HEALTHCHECK NONE takes no arguments"
            raise Fault("healthcheck", message, command[0].span, "remove what follows NONE")
        flags = Flags()  # times of what is not done mean nothing
    elif kind.text.upper() != "CMD":
        message = f"Unknown type {quote(kind.text.upper())} in HEALTHCHECK (try CMD)"
        raise Fault("healthcheck", message, kind.span, "write HEALTHCHECK CMD command, or HEALTHCHECK NONE")
    elif not command:
        raise Fault("healthcheck", "Missing command after HEALTHCHECK CMD", node.span, "add the command that checks")
    else:
        test = _command(node, command)
    return ast.Healthcheck(
        test=test,
        interval=_interval(flags, "interval"),
        timeout=_interval(flags, "timeout"),
        start_period=_interval(flags, "start-period"),
        start_interval=_interval(flags, "start-interval"),
        retries=_retries(flags.word("retries")),
        **common,
    )


def _interval(flags: Flags, name: str) -> int | None:
    word = flags.word(name)
    if word is None or not word.text:
        return None
    try:
        value = parse_duration(word.text)
    except ValueError as error:
        raise Fault("duration", str(error), word.span, "write a duration such as 30s or 1m30s") from None
    if value != 0 and value < _MILLISECOND:
        raise Fault("duration", f'Interval "{name}" cannot be less than 1ms', word.span, "0 stands for the default")
    return value


def _retries(word: Word | None) -> int | None:
    if word is None or not word.text:
        return None
    number = re.fullmatch(r"[+-]?[0-9]+", word.text)
    if number is None or not -(2**31) <= int(word.text) < 2**31:
        what = "invalid syntax" if number is None else "value out of range"
        raise Fault("retries", f"strconv.ParseInt: parsing {quote(word.text)}: {what}", word.span, "write a number")
    if int(word.text) < 0:
        raise Fault(
            "retries", f"--retries cannot be negative ({int(word.text)})", word.span, "0 stands for the default"
        )
    return int(word.text)


def _workdir(node: Node, _flags: Flags, common: dict[str, Any]) -> ast.Workdir:
    return ast.Workdir(path=_only(node), **common)


def _user(node: Node, _flags: Flags, common: dict[str, Any]) -> ast.User:
    return ast.User(name=_only(node), **common)


def _stopsignal(node: Node, _flags: Flags, common: dict[str, Any]) -> ast.Stopsignal:
    return ast.Stopsignal(signal=_only(node), **common)


def _maintainer(node: Node, _flags: Flags, common: dict[str, Any]) -> ast.Maintainer:
    return ast.Maintainer(name=_only(node).text, **common)


def _volume(node: Node, _flags: Flags, common: dict[str, Any]) -> ast.Volume:
    _at_least_one(node, bool(node.words))
    for word in node.words:
        if not word.text.strip(WIDE_BLANKS):
            raise Fault("blank-volume", "VOLUME specified can not be an empty string", word.span, "name a directory")
    return ast.Volume(paths=tuple(node.words), json_form=node.json, **common)


def _expose(node: Node, _flags: Flags, common: dict[str, Any]) -> ast.Expose:
    _at_least_one(node, bool(node.words))
    return ast.Expose(ports=tuple(node.words), **common)


def _onbuild(node: Node, _flags: Flags, common: dict[str, Any]) -> ast.Onbuild:
    child = node.child
    if child is None:
        raise _missing(node)
    if child.keyword == "onbuild":
        message = "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"
        raise Fault("onbuild", message, child.word.span, "a trigger runs in one generation only")
    if child.keyword in ("from", "maintainer"):
        message = f"{child.keyword.upper()} isn't allowed as an ONBUILD trigger"
        raise Fault("onbuild", message, child.word.span, "write it in the Dockerfile that builds on this image")
    text = _ONBUILD.sub("", node.line.text, count=1)
    for heredoc in node.heredocs:
        text += f"\n{heredoc.content}{heredoc.name}"
    return ast.Onbuild(trigger=_trigger(child), text=text, **common)


def _trigger(child: Node) -> Instruction | None:
    try:
        return transform(child) if child.keyword in _MAKERS else None
    except Fault:
        return None


def _missing(node: Node) -> Fault:
    keyword = node.keyword.upper()
    return Fault("arguments", f"{keyword} requires at least one argument", node.span, f"add what {keyword} is about")


def _at_least_one(node: Node, present: bool) -> None:  # noqa: FBT001 - the one thing it is asked
    if not present:
        raise _missing(node)


def _only(node: Node) -> Word:
    if len(node.words) != 1:
        keyword = node.keyword.upper()
        raise Fault("arguments", f"{keyword} requires exactly one argument", node.span, f"add what {keyword} is about")
    return node.words[0]


_MAKERS: dict[str, Callable[[Node, Flags, dict[str, Any]], Instruction]] = {
    "add": _add,
    "arg": _arg,
    "cmd": _cmd,
    "copy": _copy,
    "entrypoint": _entrypoint,
    "env": _env,
    "expose": _expose,
    "from": _from,
    "healthcheck": _healthcheck,
    "label": _label,
    "maintainer": _maintainer,
    "onbuild": _onbuild,
    "run": _run,
    "shell": _shell,
    "stopsignal": _stopsignal,
    "user": _user,
    "volume": _volume,
    "workdir": _workdir,
}
