"""Signals by name or number, as STOPSIGNAL, `--stop-signal` and `kill -s` write them.

It knows names and numbers only (signal(7)); what is sent to whom is the caller's matter.
"""

from __future__ import annotations

import signal

from runner.errors import SpecError


def parse_signal(text: str) -> int:
    """Return the number of `SIGTERM`, `TERM`, `15`, `RTMIN+3`, `RTMAX-1`, in any case. Raises SpecError."""
    name = text.strip().upper()
    if name.isascii() and name.isdigit():
        if 1 <= int(name) <= signal.SIGRTMAX:
            return int(name)
        raise _unknown(text)
    name = name.removeprefix("SIG")
    # As docker names them: each half of the range is counted from its own end.
    for base, sign, most in (("RTMIN+", 1, 15), ("RTMAX-", -1, 14)):
        offset = name.removeprefix(base)
        if offset != name and offset.isascii() and offset.isdigit():
            if 1 <= int(offset) <= most:
                return int(getattr(signal, "SIG" + base[:-1])) + sign * int(offset)
            raise _unknown(text)
    found = signal.Signals.__members__.get("SIG" + name)
    if found is None:
        raise _unknown(text)
    return int(found)


def _unknown(text: str) -> SpecError:
    return SpecError(f"invalid signal: {text!r}", hint="use a name or number that `kill -l` lists, as in TERM or 15")
