"""How pybuild's times grow with files, steps, layers, images and builders at once: `python -m bench.growth`.

Each curve is drawn to docs/benchmarks, and the exponent that fits it best is compared with linear growth.
"""

from __future__ import annotations

import abc
import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import disks, machine, page
from bench.contexts import file_of, write_context, write_random
from bench.measure import Usage, measure, run
from bench.plot import Series, draw
from bench.sandbox import inside, spread
from bench.tools import BASE, Pybuild
from bench.works import NotDone

LINEAR = 1.1
"""A slope up to this is called linear: the rest is what a fit through a handful of points may be wrong by."""

Points = dict[str, dict[int, list[Usage]]]


class Curve(abc.ABC):
    """One variable that grows, and what is measured at each of its positions."""

    name: str
    title: str
    variable: str
    positions: tuple[int, ...]

    def __init__(self, place: Path, pybuild: Pybuild) -> None:
        self.place = place
        self.pybuild = pybuild
        self._points: Points = {}

    def take(self, repeat: int, most: int | None) -> Points:
        """Measure at all positions up to `most`, `repeat` times each; usages by series and position."""
        for position in self.positions:
            if most is None or position <= most:
                print(f"{self.name}: {position:,}", file=sys.stderr)
                self.at(position, repeat)
        return self._points

    @abc.abstractmethod
    def at(self, position: int, repeat: int) -> None:
        """Measure at one position. CommandFailed, NotDone."""

    def note(self, series: str, position: int, usage: Usage) -> None:
        """Keep a figure."""
        self._points.setdefault(series, {}).setdefault(position, []).append(usage)

    def builds(self, context: Path, position: int, repeat: int, *, steps: int) -> str:
        """Measure builds without the cache and with it; `steps` is how many RUN and COPY there are. The image's tag."""
        tag = f"{self.name}-{position}:bench"
        for _ in range(repeat):
            os.sync()
            cold = measure(self.pybuild.build(context, tag, no_cache=True))
            self._expect(steps, self.pybuild.executed(cold.output))
            self.note("no cache", position, cold.usage)
        for _ in range(repeat):
            cached = measure(self.pybuild.build(context, tag))
            self._expect(0, self.pybuild.executed(cached.output))
            self.note("cached", position, cached.usage)
        return tag

    def _expect(self, expected: int, actual: int) -> None:
        if expected != actual:
            raise NotDone(f"{self.name}: {actual} steps were executed instead of {expected}")


class Files(Curve):
    """Files in the context."""

    name = "files"
    title = "Files in the context: COPY of all, the same cached, and with one file edited"
    variable = "files"
    positions = (1_000, 3_000, 10_000, 30_000, 100_000, 200_000)

    def at(self, position: int, repeat: int) -> None:
        """A COPY of so many files."""
        context = write_context(self.place / str(position), f"FROM {BASE}\nCOPY src /src\n", files=position)
        tag = self.builds(context, position, repeat, steps=1)
        for number in range(repeat):
            Path(file_of(context, position // 2)).write_text(f"edited {number}")
            edited = measure(self.pybuild.build(context, tag))
            self._expect(1, self.pybuild.executed(edited.output))
            self.note("one edited", position, edited.usage)


class Steps(Curve):
    """Steps of which nothing is left."""

    name = "steps"
    title = "Steps: RUN true, so many times"
    variable = "steps"
    positions = (10, 30, 100, 300, 1_000, 2_000)

    def at(self, position: int, repeat: int) -> None:
        """So many times RUN true."""
        context = write_context(self.place / str(position), f"FROM {BASE}\n" + "RUN true\n" * position)
        self.builds(context, position, repeat, steps=position)


class Layers(Curve):
    """Layers on top of each other."""

    name = "layers"
    title = "Layers in a chain: a file each, and a container on top of all"
    variable = "layers"
    positions = (10, 30, 100, 200, 300, 490)
    """Overlayfs takes 500 layers; the base image has one, and a container needs one to write to."""

    def at(self, position: int, repeat: int) -> None:
        """So many RUN that write a file each."""
        steps = "".join(f"RUN echo {number} > /file{number}\n" for number in range(position))
        context = write_context(self.place / str(position), f"FROM {BASE}\n{steps}")
        tag = self.builds(context, position, repeat, steps=position)
        for _ in range(repeat):
            self.note("run", position, measure(self.pybuild.run(tag, "true")).usage)
        seen = self.pybuild.ask(tag, "ls / | grep -c file")
        self._expect(position, int(seen))


class LayerSize(Curve):
    """The size of the layers of a build in which nothing is to be done."""

    name = "size"
    title = "Megabytes in the layers of a cached build"
    variable = "MB"
    positions = (1, 10, 100, 1_000)

    def at(self, position: int, repeat: int) -> None:
        """A file of so many megabytes copied, and once more by a RUN."""
        dockerfile = f"FROM {BASE}\nCOPY src/blob /blob\nRUN cp /blob /copy\n"
        context = write_context(self.place / str(position), dockerfile)
        write_random(context / "src" / "blob", position)
        run(self.pybuild.build(context, "size:bench"))
        time.sleep(0.1)
        run(self.pybuild.build(context, "size:bench"))
        for _ in range(repeat):
            cached = measure(self.pybuild.build(context, "size:bench"))
            self._expect(0, self.pybuild.executed(cached.output))
            self.note("cached", position, cached.usage)


class Images(Curve):
    """Images in the store."""

    name = "images"
    title = "Images in the store"
    variable = "images"
    positions = (10, 100, 1_000, 10_000)

    def at(self, position: int, repeat: int) -> None:
        """Fill the store up to so many images; list them, build, find one by name."""
        fill_store(self.pybuild, position)
        context = write_context(self.place / "context", f"FROM {BASE}\nCOPY src /src\nRUN true\n", files=100)
        self.builds(context, position, repeat, steps=2)
        commands = {
            "images": self.pybuild.other("images"),
            "inspect": self.pybuild.other("inspect", f"filled:{position // 2}"),
            "store du": self.pybuild.other("store", "du"),
        }
        for name, command in commands.items():
            for _ in range(repeat):
                self.note(name, position, measure([command]).usage)


class Together(Curve):
    """Builders of one Dockerfile at one time."""

    name = "together"
    title = "Builds of one Dockerfile on one store at one time: until all are done"
    variable = "builds"
    positions = (1, 2, 4, 8, 16, 32)

    def at(self, position: int, repeat: int) -> None:
        """Start so many at once; the steps are executed once, and everybody gets the same image."""
        for _ in range(repeat):
            steps = [
                "RUN cat /proc/sys/kernel/random/uuid > /executed",
                "RUN dd if=/dev/zero bs=1M count=300 | sha256sum",
            ]
            lines = "\n".join([f"FROM {BASE}", f"LABEL round={os.urandom(8).hex()}", "COPY src /src", *steps])
            seed = int.from_bytes(os.urandom(4), "big")
            context = write_context(self.place / str(position), f"{lines}\nRUN echo {seed}\n", files=100, seed=seed)
            self.note("all done", position, self._race(context, position))

    def _race(self, context: Path, builders: int) -> Usage:
        """Build from so many processes at once and return what they cost together. NotDone."""
        command = self.pybuild.build(context, "together:bench")[0]
        before = _children()
        start = time.perf_counter()
        processes = [
            subprocess.Popen(
                command.argv,
                env=dict(command.environ),
                cwd=command.cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for _ in range(builders)
        ]
        outputs = [process.communicate()[0] for process in processes]
        wall = time.perf_counter() - start
        failed = [out for process, out in zip(processes, outputs, strict=True) if process.returncode]
        if failed:
            raise NotDone(f"{len(failed)} of {builders} builds failed: {failed[0][-2000:]}")
        self._expect(4, sum(map(self.pybuild.executed, outputs)))
        images = {line.split()[3] for out in outputs for line in out.splitlines() if "writing image" in line}
        if len(images) != 1:
            raise NotDone(f"{builders} builds made {len(images)} images")
        return Usage(wall, _children() - before, 0)


CURVES: Mapping[str, type[Curve]] = {curve.name: curve for curve in (Files, Steps, Layers, LayerSize, Images, Together)}


def fill_store(pybuild: Pybuild, number: int) -> None:
    """Put images into the store until there are so many: `filled:1` and so on, all of the layers of the base image."""
    script = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from layerstore import Store\n"
        "store = Store.open(Path(sys.argv[1]))\n"
        f"base = store.images.get('docker.io/library/{BASE}:latest')\n"
        "config = json.loads(base.config)\n"
        "with store.lease():\n"
        "    for number in range(len(store.images.list()), int(sys.argv[2])):\n"
        "        config['config']['Labels'] = {'number': str(number)}\n"
        "        names = [f'docker.io/library/filled:{number}']\n"
        "        store.images.put(json.dumps(config).encode(), layers=base.layers, names=names)\n"
        "store.close()\n"
    )
    run([pybuild.command(sys.executable, "-c", script, pybuild.place / "store", str(number))])


def slope(points: Sequence[tuple[float, float]]) -> float | None:
    """The exponent of the power that fits the points best: least squares of the logarithms; None for fewer than two."""
    if len(points) < 2:
        return None
    xs, ys = [math.log(x) for x, _ in points], [math.log(y) for _, y in points]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    return sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread


def _children() -> float:
    times = os.times()
    return times.children_user + times.children_system


def main(words: Sequence[str]) -> int:
    """Measure what the command line says; the exit status: 1 if a curve is steeper than linear."""
    arguments = _parser().parse_args(words)
    place = inside("bench.growth", words, parent=Path(arguments.dir))
    if isinstance(place, int):
        return place
    names = arguments.only.split(",") if arguments.only else list(CURVES)
    unknown = sorted(set(names) - set(CURVES))
    if unknown:
        raise SystemExit(f"no such curve: {', '.join(unknown)} (there are {', '.join(CURVES)})")
    spread(place)
    file_system = disks.separate([place / name for name in names])
    curves = []
    for name in names:
        pybuild = Pybuild(place / name / "pybuild")
        pybuild.make_base(place / name / "base.tar")
        curve = CURVES[name](place / name / "contexts", pybuild)
        curves.append(document_of(curve, curve.take(arguments.repeat, arguments.most)))
    document = {"machine": machine.describe(file_system), "curves": curves}
    print("\n".join(_text(document)))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(document, indent=1) + "\n")
    if arguments.write:
        page.save("growth", joined(page.kept("growth"), document))
        for one in curves:
            (page.FOLDER / f"{one['name']}.svg").write_text(plot(one))
    return 1 if any(_steep(series) for one in curves for series in one["series"]) else 0


def _steep(series: Mapping[str, Any]) -> bool:
    """Whether a curve grows faster than its variable, on the whole or at its end."""
    return any((series[name] or 0) > LINEAR for name in ("slope", "end"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description="Measure how pybuild's times grow.")
    parser.add_argument("--only", metavar="CURVE,…", help=f"these curves: {', '.join(CURVES)} [all]")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="runs of each, of which the median counts")
    parser.add_argument("--most", type=int, metavar="N", help="leave out positions beyond this one")
    parser.add_argument("--json", metavar="FILE", help="write the figures to a file")
    parser.add_argument("--write", action="store_true", help="bring docs/benchmarks.md and its plots up to date")
    parser.add_argument("--dir", default="/var/tmp", metavar="DIR", help="where the stores are made [%(default)s]")
    return parser


def document_of(curve: Curve, points: Points) -> dict[str, Any]:
    """A curve as JSON has it: medians of processor time and wall clock at each position, of so many runs."""
    from statistics import median  # noqa: PLC0415 - what this process takes, what it starts seems to take

    positions = sorted({position for by_position in points.values() for position in by_position})
    series = []
    for name, by_position in points.items():
        walls = {at: median(usage.wall for usage in usages) for at, usages in by_position.items()}
        series.append(
            {
                "name": name,
                "values": [walls.get(at) for at in positions],
                "cpu": [
                    median(usage.cpu for usage in by_position[at]) if at in by_position else None for at in positions
                ],
                "peak": [
                    max(usage.peak for usage in by_position[at]) if at in by_position else None for at in positions
                ],
                "slope": slope(sorted(walls.items())),
                "end": slope(sorted(walls.items())[-3:]),
            }
        )
    return {
        "name": curve.name,
        "title": curve.title,
        "variable": curve.variable,
        "unit": "s",
        "repeat": min(len(usages) for by_position in points.values() for usages in by_position.values()),
        "positions": positions,
        "series": series,
    }


def joined(kept: Mapping[str, Any] | None, found: Mapping[str, Any]) -> dict[str, Any]:
    """The curves that were found, and those kept that were taken on the same machine and not again, in their order."""
    curves = {curve["name"]: curve for curve in found["curves"]}
    if kept is not None and {**kept["machine"], "date": ""} == {**found["machine"], "date": ""}:
        curves = {curve["name"]: curve for curve in kept["curves"]} | curves
    return {**found, "curves": [curves[name] for name in CURVES if name in curves]}


def plot(document: Mapping[str, Any]) -> str:
    """The plot of a curve's JSON."""
    curves = [
        Series(
            series["name"],
            [
                (at, value)
                for at, value in zip(document["positions"], series["values"], strict=True)
                if value is not None
            ],
        )
        for series in document["series"]
    ]
    return draw(document["title"], document["variable"], "seconds", curves)


def _text(document: Mapping[str, Any]) -> Iterator[str]:
    for curve in document["curves"]:
        yield f"{curve['title']}"
        yield f"  {curve['variable']:14} " + " ".join(f"{at:>9,}" for at in curve["positions"]) + "    slope     end"
        for series in curve["series"]:
            cells = " ".join(f"{'':>9}" if value is None else f"{value:8.3f}s" for value in series["values"])
            slopes = " ".join(f"{series[name] or 0:7.2f}" for name in ("slope", "end"))
            yield f"  {series['name']:14} {cells}  {slopes}{'  STEEPER THAN LINEAR' * _steep(series)}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
