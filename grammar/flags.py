"""The flags that each instruction takes, and the checks they have in common."""

from __future__ import annotations

from grammar.ast import Flag, Word
from grammar.node import Fault, Node
from grammar.text import did_you_mean

FLAGS: dict[str, dict[str, str]] = {
    "from": {"platform": "value"},
    "run": {"mount": "values", "network": "value", "security": "value", "device": "values"},
    "copy": {
        "from": "value",
        "chown": "value",
        "chmod": "value",
        "link": "switch",
        "parents": "switch",
        "exclude": "values",
    },
    "add": {
        "chown": "value",
        "chmod": "value",
        "link": "switch",
        "keep-git-dir": "switch",
        "checksum": "value",
        "unpack": "switch",
        "exclude": "values",
    },
    "healthcheck": {
        "interval": "value",
        "timeout": "value",
        "start-period": "value",
        "start-interval": "value",
        "retries": "value",
    },
}
"""Instruction -> flag -> whether it is a switch, has one value, or may be repeated (`values`)."""

# The reference never looks at what is written like a flag here.
_UNCHECKED = ("arg", "stopsignal")


class Flags:
    """The checked flags of one instruction."""

    __slots__ = ("_found",)

    def __init__(self, node: Node | None = None) -> None:
        """Check and take the flags of `node`; Fault. Without a node there are none."""
        self._found: dict[str, list[Flag]] = {}
        if node is None or not node.flags or node.keyword in _UNCHECKED:
            return
        known = FLAGS.get(node.keyword, {})
        for flag in node.flags:
            _check(flag, known, node.keyword, repeated=flag.name in self._found)
            self._found.setdefault(flag.name, []).append(flag)

    def word(self, name: str) -> Word | None:
        """The value of a flag, None where it was not given."""
        found = self._found.get(name)
        return _value(found[0]) if found else None

    def name(self, name: str) -> Word | None:
        """The value of a flag that names something: an empty one is none."""
        word = self.word(name)
        return word if word is not None and word.text else None

    def words(self, name: str) -> tuple[Word, ...]:
        """The values of a flag that may be repeated."""
        return tuple(_value(flag) for flag in self._found.get(name, ()))

    def switch(self, name: str) -> bool | None:
        """Whether a switch is on, None where it was not given."""
        found = self._found.get(name)
        return (found[0].value or "true").lower() == "true" if found else None


def _value(flag: Flag) -> Word:
    return Word(text=flag.value or "", span=flag.span)


def _check(flag: Flag, known: dict[str, str], keyword: str, *, repeated: bool) -> None:
    name = flag.name
    kind = known.get(name)
    if kind is None:
        takes = f"its flags are {' '.join(f'--{n}' for n in known)}" if known else "it takes no flags"
        raise Fault(
            "unknown-flag",
            f"unknown flag: --{name}{did_you_mean(name, known)}",
            flag.span,
            f"{keyword.upper()}: {takes}; a bare -- ends the flags",
        )
    if repeated and kind != "values":
        raise Fault("duplicate-flag", f"duplicate flag specified: --{name}", flag.span, "keep one of them")
    if kind == "switch":
        if flag.value == "":
            raise Fault("flag-value", f"missing a value on flag: --{name}", flag.span, f"write --{name}")
        if flag.value is not None and flag.value.lower() not in ("true", "false"):
            raise Fault(
                "flag-value",
                f"expecting boolean value for flag --{name}, not: {flag.value}",
                flag.span,
                "write true or false",
            )
    elif flag.value is None:
        raise Fault("flag-value", f"missing a value on flag: --{name}", flag.span, f"write --{name}=VALUE")
