"""docs/benchmarks.md: written from the figures in docs/benchmarks/, which the programs of this folder leave there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench import report

DOCS = Path(__file__).resolve().parent.parent / "docs"
FOLDER = DOCS / "benchmarks"
PAGE = DOCS / "benchmarks.md"


def save(name: str, document: Mapping[str, Any]) -> None:
    """Keep the figures of a program, and write the page anew."""
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    PAGE.write_text(render())


def kept(name: str) -> Any:
    """The figures of a program that are kept, as JSON has them, or None."""
    path = FOLDER / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def render() -> str:
    """The page as the kept figures have it."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Benchmarks"
    yield ""
    yield "Written by `make bench` from figures that are kept in docs/benchmarks: not edited by hand."
    for name, section in (("compare", _comparison), ("large", _large), ("growth", _growth), ("parse", _parse)):
        document = kept(name)
        if document is not None:
            yield ""
            yield from section(document)


def _machine(document: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield "; ".join(f"{name}: {value}" for name, value in document["machine"].items()) + "."
    yield ""


def _comparison(document: Mapping[str, Any]) -> Iterator[str]:
    """The table of `bench.compare`."""
    comparison = report.from_json(document)
    yield "## Beside other builders"
    yield from _machine(document)
    yield f"Each is the median of {comparison.repeat} runs of whole processes, taken in turn, after one that does not"
    yield "count; each round begins with another tool. All use the same base image, their own defaults, and the host's"
    yield "network unless it says otherwise; contexts and the registry have the same kind of file system as the tools."
    yield "Docker's engine runs all the time; it is the distribution's, as its version says. What is pushed is packed"
    yield "as each does it by default: with gzip, by pybuild with zstd what was copied, and not at all what does not"
    yield "compress, as the bytes of the layer that is pushed here. *cpu* is user and system time, that of daemons"
    yield "included. Memory is the largest process and what the daemons took in addition."
    yield ""
    yield from report.table(comparison)
    yield from _absent(comparison)


def _large(document: Mapping[str, Any]) -> Iterator[str]:
    """The table of `bench.compare --large`."""
    yield "## Memory for large layers"
    yield from _machine(document)
    yield "The most memory that all processes had at one time, daemons' in addition to what they had before, looked at"
    yield "every 20 ms. Each is done once, the smallest by all tools that can, the others by pybuild. A layer is one"
    yield "file; what is pulled is unpacked."
    yield ""
    comparison = report.from_json(document)
    yield from report.table(comparison)
    yield from _absent(comparison)


def _absent(comparison: report.Comparison) -> Iterator[str]:
    if comparison.absent:
        yield ""
        yield "Left out: " + "; ".join(f"{name} ({why})" for name, why in comparison.absent.items()) + "."


def _growth(document: Mapping[str, Any]) -> Iterator[str]:
    """The plots of `bench.growth`, and how steep they are."""
    yield "## Growth"
    yield from _machine(document)
    yield "Both axes are logarithmic; dotted lines are linear growth. *Slope* is the exponent that fits best, 1 is"
    yield "linear and 0 constant; *end* is that of the last three points."
    for curve in document["curves"]:
        yield ""
        yield f"### {curve['title']}"
        yield ""
        yield f"![{curve['title']}](benchmarks/{curve['name']}.svg)"
        yield ""
        yield f"{_runs(curve['repeat'])} at each position."
        yield ""
        positions = [f"{x:,}" for x in curve["positions"]]
        yield f"| {curve['variable']} | {' | '.join(positions)} | slope | end |"
        yield f"|---|{'---|' * len(positions)}---|---|"
        for series in curve["series"]:
            cells = " | ".join("–" if y is None else f"{y:.3g} {curve['unit']}" for y in series["values"])
            yield f"| {series['name']} | {cells} | {_slope(series['slope'])} | {_slope(series['end'])} |"


def _runs(repeat: int) -> str:
    """How many runs there were, and what was taken of them."""
    return "One run" if repeat == 1 else f"The median of {repeat} runs"


def _slope(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _parse(document: Mapping[str, Any]) -> Iterator[str]:
    """The table of `bench.parse`."""
    yield "## Reading Dockerfiles"
    yield from _machine(document)
    yield f"The median of {document['repeat']} fresh processes, after the import. A build parses and resolves;"
    yield "`pybuild fmt` parses and formats."
    yield ""
    yield "| Dockerfile | lines | parse | budget | resolve | format |"
    yield "|---|---|---|---|---|---|"
    for row in document["rows"]:
        met = "met" if row["parse"] <= row["budget"] else "**not met**"
        times = {name: f"{row[name] * 1000:.1f} ms" for name in ("parse", "resolve", "format", "budget")}
        yield (
            f"| {row['name']} | {row['lines']:,} | {times['parse']} | {times['budget']}, {met} "
            f"| {times['resolve']} | {times['format']} |"
        )
