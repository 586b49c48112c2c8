"""Collects violations: which rules are looked at, which instructions are excused. Knows no rule and no plan."""

from __future__ import annotations

import re
from collections.abc import Iterable

from grammar.ast import Instruction
from grammar.lint.options import CheckOptionError, CheckOptions
from grammar.lint.rule import FileRule, Finding, InstructionRule, Rule, StageScope, Violation
from grammar.lint.selection import REFERENCE, Selection
from grammar.resolve import Dockerfile

_EXCUSE = re.compile(r"check\s*=\s*(.+)", re.IGNORECASE)


class Linter:
    """Runs rules over one Dockerfile; `violations` holds what they found, in the order in which they were run."""

    def __init__(self, options: CheckOptions, selection: Selection = REFERENCE) -> None:
        self.options = options
        self.selection = selection
        self.violations: list[Violation] = []

    def wants(self, rule: Rule) -> bool:
        """Say whether anybody wants to hear what `rule` finds."""
        return self.selection.wants(rule, self.options)

    def check_file(self, rules: Iterable[FileRule], dockerfile: Dockerfile) -> None:
        """Run rules about the text."""
        for rule in rules:
            if self.wants(rule):
                for finding in rule.check(dockerfile):
                    self.report(rule, finding)

    def look_at(
        self, rules: Iterable[InstructionRule], instruction: Instruction, scope: StageScope
    ) -> list[tuple[Rule, Finding]]:
        """Return what rules find in one instruction, for `report` once the instruction is known to hold."""
        return [(rule, finding) for rule in rules for finding in rule.check(instruction, scope)]

    def report(self, rule: Rule, finding: Finding) -> bool:
        """Take a finding unless its rule is skipped, in the file or right above the instruction; say if it is taken."""
        if not self.wants(rule) or rule.name in excused(finding.instruction):
            return False
        self.violations.append(
            Violation(
                rule=rule,
                message=finding.message,
                span=finding.span,
                fix=finding.fix,
                file=finding.file,
                severity=self.selection.severity(rule),
            )
        )
        return True

    @property
    def ordered(self) -> tuple[Violation, ...]:
        """The violations in the order of the file; those of other files come last."""
        return tuple(sorted(self.violations, key=lambda one: (one.file is not None, one.span.start.line)))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the rules that are broken, each once, in the order in which they were run."""
        return tuple(dict.fromkeys(one.rule.name for one in self.violations))


def excused(instruction: Instruction | None) -> frozenset[str]:
    """Return the rules that `# check=skip=…` comments right above an instruction silence for it."""
    names: set[str] = set()
    for comment in () if instruction is None else instruction.comments:
        match = _EXCUSE.fullmatch(comment)
        if match is None:
            continue
        try:
            names |= CheckOptions.parse(match[1]).skip
        except CheckOptionError:
            continue  # a comment that only looks like one
    return frozenset(names)
