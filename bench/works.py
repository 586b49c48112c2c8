"""What is measured: pieces of work that every tool is given, with the floor under each and the proof that it was done.

Knows what a tool is to do; not how a tool is told.
"""

from __future__ import annotations

import abc
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench import floors
from bench.contexts import file_of, write_context, write_random
from bench.floors import Floor
from bench.measure import Command, run
from bench.registry import Registry
from bench.tools import BASE, Tool

MEGABYTE = 1 << 20
_WITNESS = "cat /proc/sys/kernel/random/uuid"
"""A command that prints something else each time: a step with it that was executed again is seen in the image."""


class NotDone(Exception):
    """A tool ended well and has not done the work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much there is to do. The defaults are those of the budgets."""

    files: int = 10_000
    many_files: int = 20_000
    steps: int = 20
    written_files: int = 5_000
    written_size: int = 40_960
    pushed_megabytes: int = 60
    large_megabytes: tuple[int, ...] = (512, 2048, 8192)

    def scaled(self, factor: float) -> Sizes:
        """The same with so many times as many files, steps and megabytes; at least one of each."""
        numbers = {
            name: max(1, round(getattr(self, name) * factor))
            for name in ("files", "many_files", "steps", "written_files", "pushed_megabytes")
        }
        return replace(self, **numbers, large_megabytes=tuple(max(1, round(n * factor)) for n in self.large_megabytes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a median may be at most: seconds of wall clock, or bytes of memory."""

    seconds: float | None = None
    memory: int | None = None


class Work(abc.ABC):
    """One piece of work. `ready` precedes every run and is not measured, `check` follows it."""

    name: str
    title: str
    budget: Budget | None = None
    watch = False
    """Whether the memory of all processes together is what matters, and is sampled: that is done once."""

    def __init__(self, place: Path, sizes: Sizes) -> None:
        self.place = place
        self.sizes = sizes
        self.context = place / "context"

    def setup(self) -> None:  # noqa: B027 - some works need nothing
        """Write what all tools get."""

    def warm(self, tool: Tool) -> None:
        """What a tool does before it is measured for the first time: the work, once."""
        self.ready(tool)
        run(self.commands(tool))

    def ready(self, tool: Tool) -> None:  # noqa: B027
        """Before each run."""

    @abc.abstractmethod
    def commands(self, tool: Tool) -> Sequence[Command]:
        """What is measured; empty if the tool cannot do it."""

    def check(self, tool: Tool, output: str) -> None:  # noqa: B027
        """After each run, with what it printed. NotDone."""

    def check_image(self, tool: Tool) -> None:  # noqa: B027
        """After the last run: look into the image. NotDone, CommandFailed."""

    def floors(self) -> Sequence[Floor]:
        """Programs in C that do the bare work."""
        return ()

    def cleanup(self, tool: Tool) -> None:  # noqa: B027
        """After the last run, where much disk was used."""

    @property
    def tag(self) -> str:
        """The name of the image."""
        return f"{self.name}:bench"


def expect(tool: Tool, what: str, expected: object, actual: object) -> None:
    """NotDone unless the two are equal."""
    if expected != actual:
        raise NotDone(f"{tool.name}: {what}: {actual} instead of {expected}")


class Cached(Work):
    """A rebuild in which nothing has changed."""

    name = "cached"
    budget: Budget | None = Budget(seconds=0.12)

    def __init__(self, place: Path, sizes: Sizes) -> None:
        super().__init__(place, sizes)
        self.title = f"20 instructions, context of {sizes.files:,} files, all cached"
        self._witness: dict[str, str] = {}

    def setup(self) -> None:
        """Twenty instructions: one copies, eight run, the others say something of the image."""
        lines = [
            f"FROM {BASE}",
            "ARG VERSION=1",
            "ENV LANG=C.UTF-8 APP=/src",
            "LABEL org.opencontainers.image.title=bench",
            "WORKDIR /src",
            "COPY src /src",
            f"RUN {_WITNESS} > /executed",
            *(f"RUN echo {number} > /step{number}" for number in range(7)),
            "ENV VERSION=$VERSION",
            "EXPOSE 8000",
            "VOLUME /data",
            "USER 1000",
            "STOPSIGNAL SIGINT",
            'CMD ["true"]',
        ]
        write_context(self.context, "\n".join(lines) + "\n", files=self.sizes.files)

    def warm(self, tool: Tool) -> None:
        """Build, so that there is something in the cache, and once more."""
        super().warm(tool)
        if self.commands(tool):
            self._witness[tool.name] = self._executed(tool)
            super().warm(tool)

    def _executed(self, tool: Tool) -> str:
        return tool.ask(self.tag, "cat /executed")

    def commands(self, tool: Tool) -> Sequence[Command]:
        """Build."""
        return tool.build(self.context, self.tag)

    def check(self, tool: Tool, output: str) -> None:
        """No step was executed."""
        expect(tool, "steps executed", 0, tool.executed(output))

    def check_image(self, tool: Tool) -> None:
        """The witness is the one of the first build."""
        expect(tool, "witness of the first build", self._witness[tool.name], self._executed(tool))

    def floors(self) -> Sequence[Floor]:
        """An interpreter that starts, and a walk."""
        return [floors.walk(self.context)]


class Edited(Work):
    """One file of many was edited: COPY and a RUN that needs it."""

    name = "edited"
    budget: Budget | None = Budget(seconds=0.45)

    def __init__(self, place: Path, sizes: Sizes) -> None:
        super().__init__(place, sizes)
        self.title = f"the same context, one file edited: COPY of {sizes.files:,} files, and RUN"
        self._texts: dict[str, str] = {}

    def setup(self) -> None:
        """A COPY, and a RUN that reads the edited file."""
        write_context(
            self.context,
            f"FROM {BASE}\nCOPY src /src\nRUN cp {self._inside()} /seen\n",
            files=self.sizes.files,
        )

    def _inside(self) -> str:
        return file_of(Path("/"), self.sizes.files // 2).replace("//", "/")

    def ready(self, tool: Tool) -> None:
        """Edit the file."""
        text = self._texts[tool.name] = os.urandom(20).hex()
        Path(file_of(self.context, self.sizes.files // 2)).write_text(text)

    def commands(self, tool: Tool) -> Sequence[Command]:
        """Build."""
        return tool.build(self.context, self.tag)

    def check(self, tool: Tool, output: str) -> None:
        """Both steps were executed."""
        expect(tool, "steps executed", 2, tool.executed(output))

    def check_image(self, tool: Tool) -> None:
        """The image has the last text, and all files."""
        expect(tool, "the edited file", self._texts[tool.name], tool.ask(self.tag, "cat /seen"))
        expect(tool, "files copied", str(self.sizes.files), tool.ask(self.tag, "find /src -type f | wc -l"))

    def floors(self) -> Sequence[Floor]:
        """The walk, a tar of everything, a container."""
        return [floors.walk(self.context), floors.tar(self.context), floors.links(self.context, self.place / "links")]


class Steps(Work):
    """Steps that do nothing: what a container costs."""

    name = "steps"
    budget: Budget | None = Budget(seconds=0.30)
    network = "host"

    def __init__(self, place: Path, sizes: Sizes) -> None:
        super().__init__(place, sizes)
        self.title = f"{sizes.steps} × RUN true, no cache"

    def setup(self) -> None:
        """Nothing but RUN."""
        write_context(self.context, f"FROM {BASE}\n" + "RUN true\n" * self.sizes.steps)

    def commands(self, tool: Tool) -> Sequence[Command]:
        """Build without the cache."""
        return tool.build(self.context, self.tag, no_cache=True, network=self.network)

    def check(self, tool: Tool, output: str) -> None:
        """All steps were executed."""
        expect(tool, "steps executed", self.sizes.steps, tool.executed(output))

    def floors(self) -> Sequence[Floor]:
        """Namespaces and exec, as often."""
        return [floors.containers(self.place / "root", self.sizes.steps)]


class BridgedSteps(Steps):
    """The same with the network that steps have by default."""

    name = "bridged"
    budget = None
    network = "bridge"

    def __init__(self, place: Path, sizes: Sizes) -> None:
        super().__init__(place, sizes)
        self.title = f"{sizes.steps} × RUN true, no cache, on a bridge"

    def floors(self) -> Sequence[Floor]:
        """Those of the others."""
        return ()


class Files(Work):
    """Many small files copied, without the cache."""

    name = "files"
    budget: Budget | None = Budget(seconds=0.60)
    fresh = False

    def __init__(self, place: Path, sizes: Sizes) -> None:
        super().__init__(place, sizes)
        self.title = f"COPY of {sizes.many_files:,} small files, no cache"

    def setup(self) -> None:
        """A COPY of everything, and nothing else."""
        write_context(self.context, f"FROM {BASE}\nCOPY src /src\n", files=self.sizes.many_files)

    def commands(self, tool: Tool) -> Sequence[Command]:
        """Build without the cache."""
        return tool.build(self.context, self.tag, no_cache=True)

    def check(self, tool: Tool, output: str) -> None:
        """The step was executed."""
        expect(tool, "steps executed", 1, tool.executed(output))

    def check_image(self, tool: Tool) -> None:
        """All files are there, with all their bytes."""
        expected = f"{self.sizes.many_files} {1000 * self.sizes.many_files}"
        count = "find /src -type f | wc -l; find /src -type f -exec cat {} + | wc -c"
        expect(tool, "files and bytes", expected, " ".join(tool.ask(self.tag, count).split()))

    def floors(self) -> Sequence[Floor]:
        """A tar, hashed; and a copy."""
        return [floors.tar(self.context), floors.copy(self.context, self.place / "copies")]


class NewFiles(Files):
    """The same, of files whose bytes nobody has seen before."""

    name = "new-files"
    budget = None

    def __init__(self, place: Path, sizes: Sizes) -> None:
        super().__init__(place, sizes)
        self.title = f"COPY of {sizes.many_files:,} small files that were never seen before"
        self._seed = 0

    def ready(self, tool: Tool) -> None:
        """Write all files anew."""
        del tool
        self._seed += 1
        write_context(self.context, f"FROM {BASE}\nCOPY src /src\n", files=self.sizes.many_files, seed=self._seed)

    def floors(self) -> Sequence[Floor]:
        """Those of the others."""
        return ()


class Written(Work):
    """A step that writes a lot."""

    name = "written"
    budget: Budget | None = Budget(seconds=0.70)

    def __init__(self, place: Path, sizes: Sizes) -> None:
        super().__init__(place, sizes)
        megabytes = sizes.written_files * sizes.written_size // 10**6
        self.title = f"RUN writing {sizes.written_files:,} files and {megabytes} MB, no cache"

    def script(self, target: str) -> str:
        """An awk program: the writing is its only work, and one process does all of it."""
        block = "0123456789abcdef0123456789abcdef01234567"
        return (
            f'BEGIN {{ v = "{block}"; while (length(v) < {self.sizes.written_size}) v = v v; '
            f"for (i = 0; i < {self.sizes.written_files}; i++) "
            f'{{ f = "{target}/" i; printf "%s", v > f; close(f) }} }}'
        )

    def setup(self) -> None:
        """One RUN."""
        write_context(self.context, f"FROM {BASE}\nRUN mkdir /out && awk '{self.script('/out')}'\n")

    def commands(self, tool: Tool) -> Sequence[Command]:
        """Build without the cache."""
        return tool.build(self.context, self.tag, no_cache=True)

    def check(self, tool: Tool, output: str) -> None:
        """The step was executed."""
        expect(tool, "steps executed", 1, tool.executed(output))

    def check_image(self, tool: Tool) -> None:
        """All files are there, with all their bytes."""
        files, size = self.sizes.written_files, self.sizes.written_size
        count = "find /out -type f | wc -l; find /out -type f -exec cat {} + | wc -c"
        expect(tool, "files and bytes", f"{files} {files * size}", " ".join(tool.ask(self.tag, count).split()))

    def floors(self) -> Sequence[Floor]:
        """The same program and a tar, hashed."""
        return [floors.write(self.script("."), self.place / "outs")]


class Pushed(Work):
    """A layer that is new, built and pushed."""

    name = "pushed"
    budget: Budget | None = Budget(seconds=0.45)

    def __init__(self, place: Path, sizes: Sizes, registry: Registry) -> None:
        super().__init__(place, sizes)
        self.title = f"build and push a fresh {sizes.pushed_megabytes} MB layer to a registry on loopback"
        self._registry = registry
        self._round = 0

    def setup(self) -> None:
        """A COPY of a file that does not compress."""
        write_context(self.context, f"FROM {BASE}\nCOPY src/blob /blob\n")
        self.ready_floor()

    def ready(self, tool: Tool) -> None:
        """Write another file, for another name: what is there already would not be sent."""
        del tool
        self._round += 1
        self.ready_floor()

    def ready_floor(self) -> None:
        """Write the file."""
        write_random(self.context / "src" / "blob", self.sizes.pushed_megabytes)

    def commands(self, tool: Tool) -> Sequence[Command]:
        """Build and push."""
        return tool.publish(self.context, f"{self._registry.host}/{tool.name}:{self._round}")

    def check(self, tool: Tool, output: str) -> None:
        """The registry has the layer, whole."""
        del output
        sizes = self._registry.layer_sizes(tool.name, str(self._round))
        if max(sizes) < self.sizes.pushed_megabytes * MEGABYTE:
            raise NotDone(f"{tool.name}: no layer of {self.sizes.pushed_megabytes} MB was pushed: {sizes}")

    def floors(self) -> Sequence[Floor]:
        """Hashed, and uploaded."""
        return [floors.upload(self.context / "src" / "blob", self._registry.host)]


class Started(Work):
    """A container that does nothing."""

    name = "started"
    title = "run --rm IMAGE true, the host's network"
    budget: Budget | None = Budget(seconds=0.06)

    def commands(self, tool: Tool) -> Sequence[Command]:
        """Run."""
        return tool.run(BASE, "true")

    def check_image(self, tool: Tool) -> None:
        """What is run is run."""
        if tool.run(BASE, "true"):
            expect(tool, "output of a container", "7", tool.ask(BASE, "echo $((3 + 4))"))

    def floors(self) -> Sequence[Floor]:
        """Namespaces and exec."""
        return [floors.containers(self.place / "root", 1)]


class Version(Work):
    """A command that does nothing: what it costs to start."""

    name = "version"
    title = "--version"
    budget: Budget | None = Budget(seconds=0.04)

    def commands(self, tool: Tool) -> Sequence[Command]:
        """Ask."""
        return [tool.version()]

    def check(self, tool: Tool, output: str) -> None:
        """It says a version."""
        if not any(letter.isdigit() for letter in output):
            raise NotDone(f"{tool.name}: no version in {output!r}")

    def floors(self) -> Sequence[Floor]:
        """An interpreter that starts."""
        return [floors.interpreter()]


def works(place: Path, sizes: Sizes, registry: Registry | None, *, large: bool) -> Iterator[Work]:
    """All works, in the order of the budgets; without a registry those that push are left out."""
    for kind in (Cached, Edited, Steps, BridgedSteps, Files, NewFiles, Written):
        yield kind(place / kind.name, sizes)
    if registry is not None:
        yield Pushed(place / Pushed.name, sizes, registry)
    yield Started(place / Started.name, sizes)
    if registry is not None and large:
        from bench.large import large_works  # noqa: PLC0415 - it is made of what is here

        yield from large_works(place, sizes, registry)
    yield Version(place / Version.name, sizes)
