"""The same work through pybuild and its peers in turn, with the floor under each: `python -m bench.compare`.

Times are medians of whole processes, user's command to prompt. It needs root; see `--help`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench import disks, machine, page
from bench.floors import Floor
from bench.measure import CommandFailed, Usage, measure, own_peak, run
from bench.registry import Registry, serve
from bench.report import Comparison, Figures, Measured, show, to_json
from bench.sandbox import inside, spread
from bench.tools import PEERS, Pybuild, Tool, Unable
from bench.works import NotDone, Sizes, Work, works


@dataclass(slots=True)
class Options:
    """What the command line says."""

    only: frozenset[str]
    repeat: int
    peers: tuple[str, ...]
    sizes: Sizes
    large: bool


@dataclass(slots=True)
class Session:
    """The tools that are there, and why the others are not."""

    tools: list[Tool]
    absent: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def main(words: Sequence[str]) -> int:
    """Measure what the command line says; the exit status: 1 if some work was not done, or pybuild's not at all."""
    arguments = _parser().parse_args(words)
    place = inside("bench.compare", words, parent=Path(arguments.dir))
    if isinstance(place, int):
        return place
    unknown = [name for name in arguments.peers if name not in PEERS]
    if unknown:
        raise SystemExit(f"no such peer: {', '.join(unknown)} (there are {', '.join(PEERS)})")
    options = Options(
        only=frozenset(arguments.only),
        repeat=arguments.repeat,
        peers=tuple(arguments.peers),
        sizes=Sizes().scaled(arguments.scale) if arguments.scale != 1 else Sizes(),
        large=arguments.large,
    )
    comparison = _compare(options, place)
    print(show(comparison))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(to_json(comparison), indent=1) + "\n")
    if arguments.write:
        for name, large in (("compare", False), ("large", True)):
            found = [work for work in comparison.works if work.large == large]
            if found:
                page.save(name, to_json(replace(comparison, works=found)))
    return 1 if any(measured.failed for measured in comparison.works) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.compare",
        description="Do the same work with pybuild and other builders, in turn, and say what each costs.",
    )
    parser.add_argument(
        "--only", type=_words, default=[], metavar="WORK,…", help="these works (an unknown one lists them)"
    )
    parser.add_argument("--repeat", type=_positive, default=7, metavar="N", help="runs of each that count [7]")
    parser.add_argument(
        "--peers", type=_words, default=list(PEERS), metavar="TOOL,…", help="these peers; none is '' [all]"
    )
    parser.add_argument(
        "--large", action="store_true", help="also the memory that layers of 0.5, 2 and 8 GB take, in 10 minutes"
    )
    parser.add_argument("--scale", type=float, default=1.0, metavar="FACTOR", help="so many times the files and bytes")
    parser.add_argument("--json", metavar="FILE", help="write all figures to a file")
    parser.add_argument("--write", action="store_true", help="bring docs/benchmarks.md up to date")
    parser.add_argument(
        "--dir", default=_roomy(), metavar="DIR", help="where the stores are made, and removed [%(default)s]"
    )
    return parser


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _roomy() -> str:
    """A directory for temporary files on a disk: /tmp may be in memory."""
    return "/var/tmp" if os.access("/var/tmp", os.W_OK) else "/tmp"


def _compare(options: Options, place: Path) -> Comparison:
    """Measure everything."""
    spread(place)
    file_system = disks.separate([place / name for name in (Pybuild.name, *options.peers, "works", "registry")])
    spread(place / "works")
    with contextlib.ExitStack() as stack:
        session = stack.enter_context(_tools(options.peers, place))
        try:
            registry = stack.enter_context(serve(place / "registry"))
        except FileNotFoundError:
            registry = None
            session.absent["docker-registry"] = "not installed: nothing is pushed"
        measured = [_work(work, session.tools, options.repeat) for work in _chosen(options, place / "works", registry)]
        return Comparison(
            machine={**machine.describe(file_system), **session.versions},
            absent=session.absent,
            repeat=options.repeat,
            own_peak=own_peak(),
            works=measured,
        )


def _chosen(options: Options, place: Path, registry: Registry | None) -> Iterator[Work]:
    """The works that were asked for. SystemExit if one is unknown."""
    found = list(works(place, options.sizes, registry, large=options.large))
    unknown = options.only - {work.name for work in found}
    if unknown:
        names = ", ".join(work.name for work in found)
        raise SystemExit(f"no such work: {', '.join(sorted(unknown))} (there are {names})")
    yield from (work for work in found if not options.only or work.name in options.only)


@contextlib.contextmanager
def _tools(peers: Sequence[str], place: Path) -> Iterator[Session]:
    """pybuild and those of the peers that can work here, started; they are stopped at the end."""
    pybuild = Pybuild(place / "pybuild")
    base = place / "base.tar"
    pybuild.make_base(base)
    session = Session([])
    with contextlib.ExitStack() as stack:
        for tool in [pybuild, *(PEERS[name](place / name) for name in peers)]:
            stack.callback(tool.stop)
            try:
                tool.start(base)
            except Unable as error:
                session.absent[tool.name] = str(error)
                continue
            session.tools.append(tool)
            session.versions[tool.name] = run([tool.version()]).strip()
        yield session


def _work(work: Work, tools: Sequence[Tool], repeat: int) -> Measured:
    """Warm up, then let every tool and every floor do the work in turn, as often as asked; look at the images.

    Each round begins with another tool, so that none always comes after the same one.
    """
    print(f"{work.name}: {work.title}", file=sys.stderr)
    work.setup()
    measured = Measured(name=work.name, title=work.title, budget=work.budget, figures=[], failed={})
    able = []
    for tool in tools:
        with _failures(measured, tool):
            if work.commands(tool):
                work.warm(tool)
                able.append(tool)
    runs: dict[str, list[Usage]] = {tool.name: [] for tool in able}
    floors = [] if work.budget is None or work.budget.seconds is None else list(work.floors())
    under: dict[str, list[Usage]] = {floor.name: [] for floor in floors}
    for number in range(1 if work.watch else repeat):
        first = number % len(able) if able else 0
        for tool in (*able[first:], *able[:first]):
            if tool.name not in measured.failed:
                with _failures(measured, tool):
                    runs[tool.name].append(_once(work, tool))
        for floor in floors:
            under[floor.name].append(_floor(floor, number))
    for tool in able:
        if tool.name not in measured.failed:
            with _failures(measured, tool):
                work.check_image(tool)
        with _failures(measured, tool):
            work.cleanup(tool)
    measured.figures.extend(
        Figures(name, floor=False, runs=usages) for name, usages in runs.items() if name not in measured.failed
    )
    measured.figures.extend(Figures(name, floor=True, runs=usages) for name, usages in under.items())
    return measured


@contextlib.contextmanager
def _failures(measured: Measured, tool: Tool) -> Iterator[None]:
    """What a tool does wrong is written down; the others go on."""
    try:
        yield
    except (CommandFailed, NotDone, OSError, ValueError) as error:
        measured.failed[tool.name] = str(error)


def _once(work: Work, tool: Tool) -> Usage:
    """One run of a tool. CommandFailed, NotDone."""
    work.ready(tool)
    os.sync()  # what others wrote is not to be written while this is measured
    done = measure(work.commands(tool), daemons=tool.daemons(), watch=work.watch)
    work.check(tool, done.output)
    return done.usage


def _floor(floor: Floor, number: int) -> Usage:
    """One run of a floor."""
    os.sync()
    return measure(floor.commands(number)).usage


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
