"""The `# check=` directive and its build argument: `skip=A,B;experimental=C;error=true`. Knows no rule by name."""

from __future__ import annotations

from grammar.errors import GrammarError
from grammar.record import Record, field
from grammar.text import quote

_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")
ALL = "all"
_PARTS = 3


class CheckOptionError(GrammarError):
    """A value of the directive that means nothing."""


class CheckOptions(Record):
    """Which rules are looked at; "all" alone stands for every rule. `error` makes violations errors of the build."""

    skip: frozenset[str] = field(default=frozenset())
    experimental: frozenset[str] = field(default=frozenset())
    error: bool = False

    @classmethod
    def parse(cls, text: str, *, where: str = "check options") -> CheckOptions:
        """Read the value of the directive; CheckOptionError, which names `where` it stands.

        Names of rules are taken as they are, known or not.
        """
        if not text.strip():
            return cls()
        found: dict[str, frozenset[str]] = {}
        error = False
        for part in text.strip().split(";", _PARTS - 1):
            key, equals, value = part.partition("=")
            key, value = key.strip(), value.strip()
            if not equals or key not in ("skip", "experimental", "error"):
                hint = "the options are skip=RULE,…, experimental=RULE,… and error=true, separated by ;"
                raise CheckOptionError(
                    f"failed to parse {where}: invalid check option {quote(key if equals else part)}", hint=hint
                )
            if key == "error":
                error = _boolean(part, value, where)
            else:
                found[key] = frozenset(name.strip() for name in value.split(","))
        return cls(
            skip=found.get("skip", frozenset()), experimental=found.get("experimental", frozenset()), error=error
        )

    def wants(self, name: str, *, experimental: bool) -> bool:
        """Say whether the rule called `name` is looked at; skipping says nothing about an experimental one."""
        if experimental:
            return _names(self.experimental, name)
        return not _names(self.skip, name)


def _names(rules: frozenset[str], name: str) -> bool:
    return name in rules or rules == {ALL}


def _boolean(part: str, value: str, where: str) -> bool:
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    message = (
        f"failed to parse {where}: failed to parse check option {quote(part)}: "
        f"strconv.ParseBool: parsing {quote(value)}: invalid syntax"
    )
    raise CheckOptionError(message, hint="write error=true or error=false")
