"""The colours of terminal progress and BUILDKIT_COLORS, which changes them: `run=green:error=255,80,0`."""

from __future__ import annotations

from collections.abc import Mapping

from builder.errors import UsageError
from grammar.record import Record

RESET = "\x1b[0m"

_NAMED: Mapping[str, str] = {
    "black": "30",
    "blue": "34",
    "cyan": "36",
    "green": "32",
    "magenta": "35",
    "red": "31",
    "white": "37",
    "yellow": "33",
    "light-black": "90",
    "light-blue": "94",
    "light-cyan": "96",
    "light-green": "92",
    "light-magenta": "95",
    "light-red": "91",
    "light-white": "97",
    "light-yellow": "93",
}


class Colors(Record):
    """SGR parameters per meaning; the empty string leaves text as it is."""

    run: str = "36"
    cancel: str = "33"
    warning: str = "33"
    error: str = "31"
    log: str = "2"

    @classmethod
    def none(cls) -> Colors:
        """Return the colours of a terminal that is to have none."""
        return cls(run="", cancel="", warning="", error="", log="")

    @classmethod
    def parse(cls, text: str) -> Colors:
        """Take a value of BUILDKIT_COLORS; UsageError for a part that means nothing."""
        changes: dict[str, str] = {}
        for part in filter(None, text.split(":")):
            key, _, value = part.partition("=")
            if key not in ("run", "cancel", "warning", "error"):
                raise _refused(part, "colours are for run, cancel, warning and error")
            changes[key] = _sgr(value, part)
        return cls(**changes)


def paint(text: str, sgr: str) -> str:
    """Return `text` in a colour, if there is one."""
    return f"\x1b[{sgr}m{text}{RESET}" if sgr else text


def _sgr(value: str, part: str) -> str:
    if named := _NAMED.get(value.lower()):
        return named
    numbers = value.split(",")
    if len(numbers) == 3 and all(number.isascii() and number.isdigit() and int(number) < 256 for number in numbers):
        return "38;2;" + ";".join(str(int(number)) for number in numbers)
    raise _refused(part, "a colour is a name such as green or light-blue, or R,G,B with numbers up to 255")


def _refused(part: str, hint: str) -> UsageError:
    return UsageError(f"BUILDKIT_COLORS: {part!r} means nothing", hint=hint)
