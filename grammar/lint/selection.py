"""Which rules a check looks at, and how grave what they find is. Knows groups of rules and no rule by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from grammar.diagnostics import Severity
from grammar.lint.options import ALL, CheckOptions
from grammar.lint.rule import BUILDKIT, PYBUILD, STYLE, Rule
from grammar.record import Record, field

GROUPS = (ALL, BUILDKIT, PYBUILD, STYLE)
"""What may stand where a rule is selected, besides the names of rules."""


class Selection(Record):
    """The rules that are looked at: those selected by name or group, without those ignored.

    A rule that has to be asked for is asked for by its name, by `style` if it is of that group, by `all`, or by the
    file's own directive. `severities` changes what a rule's findings are; None turns the rule off.
    """

    select: frozenset[str] = field(default=frozenset({BUILDKIT}))
    ignore: frozenset[str] = field(default=frozenset())
    severities: Mapping[str, Severity | None] = field(default=MappingProxyType({}))

    def wants(self, rule: Rule, directive: CheckOptions) -> bool:
        """Say whether `rule` is looked at in a file with this directive."""
        if self.ignore & {ALL, rule.group, rule.name} or self.severities.get(rule.name, rule) is None:
            return False
        if rule.experimental and self._open_to(rule) and directive.wants(rule.name, experimental=True):
            return True
        groups = {ALL} if rule.experimental and rule.group != STYLE else {ALL, rule.group}
        return bool(self.select & {*groups, rule.name}) and directive.wants(rule.name, experimental=False)

    def _open_to(self, rule: Rule) -> bool:
        """Whether the file may ask for the rule: where only BuildKit's are looked at, for those alone."""
        return rule.group == BUILDKIT or bool(self.select - {BUILDKIT})

    def severity(self, rule: Rule) -> Severity:
        """Return how grave the findings of `rule` are."""
        return self.severities.get(rule.name) or Severity.WARNING


REFERENCE = Selection()
"""What BuildKit looks at."""
EVERYTHING = Selection(select=frozenset({BUILDKIT, PYBUILD}))
"""What is looked at unless somebody wishes otherwise."""
