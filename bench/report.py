"""Figures of a comparison: as text for a terminal, as a table of Markdown, and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.measure import Usage
from bench.works import Budget


def _median(numbers: Iterable[float]) -> float:
    # not imported while something is measured: what this process takes, every process that it starts is seen to take
    from statistics import median  # noqa: PLC0415 - see above

    return median(numbers)


@dataclass(frozen=True, slots=True)
class Figures:
    """All runs of one tool, or of one floor, for one work."""

    name: str
    floor: bool
    runs: Sequence[Usage]

    @property
    def wall(self) -> float:
        """Seconds of wall clock, the median."""
        return _median(run.wall for run in self.runs)

    @property
    def least(self) -> float:
        """Seconds of wall clock, the least."""
        return min(run.wall for run in self.runs)

    @property
    def cpu(self) -> float:
        """Seconds of processor time, the median."""
        return _median(run.cpu for run in self.runs)

    @property
    def peak(self) -> int:
        """Bytes of memory, the most."""
        return max(run.peak for run in self.runs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One work: what each tool took for it, the first being pybuild; and what failed, by tool."""

    name: str
    title: str
    budget: Budget | None
    figures: list[Figures]
    failed: dict[str, str]

    @property
    def large(self) -> bool:
        """Whether memory is what matters."""
        return self.budget is not None and self.budget.memory is not None

    @property
    def met(self) -> bool | None:
        """Whether pybuild keeps to the budget; None without one, or without a figure."""
        own = next((one for one in self.figures if one.name == "pybuild"), None)
        if self.budget is None or own is None:
            return None
        if self.budget.seconds is not None:
            return own.wall <= self.budget.seconds
        return own.peak <= (self.budget.memory or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Everything of one run of the program."""

    machine: Mapping[str, str]
    absent: Mapping[str, str]
    repeat: int
    own_peak: int
    works: Sequence[Measured]


def show(comparison: Comparison) -> str:
    """The comparison as text."""
    return "\n".join(_lines(comparison))


def _lines(comparison: Comparison) -> Iterator[str]:
    yield from (f"{name}: {value}" for name, value in comparison.machine.items())
    yield from (f"{name} is left out: {why}" for name, why in comparison.absent.items())
    yield f"median of {comparison.repeat}; no process is seen to take less memory than {_size(comparison.own_peak)}"
    for work in comparison.works:
        yield ""
        yield f"{work.name}: {work.title}{_verdict(work)}"
        yield f"  {'':34} {'median':>9} {'least':>9} {'cpu':>9} {'peak':>9}  × pybuild"
        own = next((one.wall for one in work.figures if not one.floor), None)
        for one in work.figures:
            ratio = f"{one.wall / own:10.2f}" if own else ""
            times = f"{_time(one.wall):>9} {_time(one.least):>9} {_time(one.cpu):>9}"
            yield f"  {'floor: ' * one.floor + one.name:34} {times} {_size(one.peak):>9} {ratio}"
        yield from (f"  {name} failed: {why}" for name, why in work.failed.items())


def _verdict(work: Measured) -> str:
    if work.budget is None:
        return ""
    text = _time(work.budget.seconds) if work.budget.seconds is not None else _size(work.budget.memory or 0)
    return f" (budget {text}: {'no figure' if work.met is None else 'met' if work.met else 'NOT MET'})"


def _time(seconds: float) -> str:
    return f"{seconds:.3f} s" if seconds < 10 else f"{seconds:.1f} s"


def _size(size: int) -> str:
    return f"{size / 10**6:.0f} MB"


def to_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison as JSON has it."""
    return asdict(comparison)


def from_json(document: Mapping[str, Any]) -> Comparison:
    """The comparison that `to_json` wrote. KeyError, TypeError."""
    works = [
        Measured(
            name=work["name"],
            title=work["title"],
            budget=Budget(**work["budget"]) if work["budget"] else None,
            figures=[
                Figures(one["name"], one["floor"], [Usage(*run) for run in one["runs"]]) for one in work["figures"]
            ],
            failed=work["failed"],
        )
        for work in document["works"]
    ]
    return Comparison(**{**document, "works": works})


def table(comparison: Comparison) -> Iterator[str]:
    """The comparison as lines of Markdown: a row a work, a column a tool."""
    names = list(dict.fromkeys(one.name for work in comparison.works for one in work.figures if not one.floor))
    floor = any(one.floor for work in comparison.works for one in work.figures)
    yield f"| work | budget | {' | '.join(names)} |{' floor |' * floor}"
    yield f"|---|---|{'---|' * len(names)}{'---|' * floor}"
    for work in comparison.works:
        cells = " | ".join(_cell(work, name) for name in names)
        yield f"| {work.title} | {_budget(work)} | {cells} |{f' {_floor(work)} |' * floor}"


def _budget(work: Measured) -> str:
    if work.budget is None:
        return "–"
    text = f"{work.budget.seconds:g} s" if work.budget.seconds is not None else _size(work.budget.memory or 0)
    return text if work.met is None else f"{text}, {'met' if work.met else '**not met**'}"


def _cell(work: Measured, name: str) -> str:
    """Median and least of a tool, its processor time, its memory, and how many times pybuild's time it took."""
    found = {one.name: one for one in work.figures if not one.floor}
    if name not in found:
        return "failed" if name in work.failed else "–"
    one = found[name]
    if work.large:
        return _size(one.peak)
    ratio = f" = {one.wall / found['pybuild'].wall:.1f}×" if name != "pybuild" and "pybuild" in found else ""
    return f"{_time(one.wall)}{ratio}<br>least {_time(one.least)}, cpu {_time(one.cpu)}, {_size(one.peak)}"


def _floor(work: Measured) -> str:
    return "<br>".join(f"{_time(one.wall)} {one.name.replace('|', chr(92) + '|')}" for one in work.figures if one.floor)
