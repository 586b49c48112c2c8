"""Bytes of a step's output as text, in whatever pieces they arrive.

Knows UTF-8, line ends and terminal control sequences, each of which may be cut anywhere; knows no screen and no steps.
"""

from __future__ import annotations

import codecs
import re

NEWLINE = "\n"
RETURN = "\r"

_SEQUENCE = (
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]"  # CSI … final byte (ECMA-48, 5.4)
    r"|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)"  # OSC, DCS, SOS, PM, APC … BEL or ST
    r"|[ -/]+[0-~]"  # nF escape sequences, such as the choice of a character set
    r"|[0-OQ-WYZ`-~])"  # two characters
)
_CONTROLS = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]+"
_TEXT = r"[^\x00-\x08\x0a-\x1f\x7f-\x9f]+"
# Compiled when a step first says something: in a build that is all cached none does.
_TOKEN = rf"(\r*\n)|(\r+)|({_SEQUENCE})|({_CONTROLS})|({_TEXT})"
_SPECIAL = r"[\x00-\x08\x0b-\x1f\x7f-\x9f]"
_UNFINISHED = r"(?:\r+|\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b]*\x1b?|[ -/]*)?)\Z"
_STYLE = r"\x1b\[[0-9;:]*m\Z"
_LONGEST_SEQUENCE = 4096


class LogText:
    """One stream of one step. `feed` returns tokens: text, NEWLINE, or RETURN (the next text overwrites the line).

    Text keeps colours (SGR sequences); what moves a cursor, sets a title or rings a bell is left out, bytes that are no
    UTF-8 become U+FFFD.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._unfinished = re.compile(_UNFINISHED)

    def feed(self, data: bytes, *, final: bool = False) -> list[str]:
        """Take the next bytes; with `final`, give out what was held back in the hope of its other half."""
        text = self._held + self._decoder.decode(data, final)
        self._held = ""
        if not final and (cut := self._unfinished.search(text, max(0, len(text) - _LONGEST_SEQUENCE))):
            self._held = text[cut.start() :]
            text = text[: cut.start()]
        if not re.search(_SPECIAL, text):
            lines = text.split(NEWLINE)
            return [token for line in lines for token in (line, NEWLINE) if token][:-1]
        tokens: list[str] = []
        for match in re.finditer(_TOKEN, text):
            match match.lastindex:
                case 1:
                    tokens.append(NEWLINE)
                case 2:
                    tokens.append(RETURN)
                case 4:
                    continue
                case 3 if not re.match(_STYLE, match[0]):
                    continue
                case _ if tokens and tokens[-1] not in (NEWLINE, RETURN):
                    tokens[-1] += match[0]
                case _:
                    tokens.append(match[0])
        return tokens
