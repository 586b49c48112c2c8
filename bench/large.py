"""The memory that large layers take: committed, pushed, saved and pulled. How long that takes is not the question."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.contexts import write_context
from bench.measure import Command, run
from bench.registry import Registry
from bench.tools import BASE, Tool
from bench.works import MEGABYTE, Budget, NotDone, Sizes, Work, expect

_RANDOM = "dd if=/dev/urandom of=/large bs=1M count={megabytes}"
_TEXT = "yes 'All work and no play makes Jack a dull boy.' | dd of=/large bs=1M count={megabytes} iflag=fullblock"


class Large(Work):
    """A layer of one large file; `compressible` or not."""

    budget = Budget(memory=100 * 10**6)
    watch = True
    verb: str

    def __init__(self, place: Path, sizes: Sizes, registry: Registry, megabytes: int, *, compressible: bool) -> None:
        self.name = f"large-{self.verb}-{megabytes}" + ("-text" if compressible else "")
        super().__init__(place / self.name, sizes)
        kind = " that compresses well" if compressible else ""
        self.title = f"peak memory: a layer of {megabytes / 1024:g} GB{kind} {self.verb}"
        self.megabytes = megabytes
        self.registry = registry
        self._script = (_TEXT if compressible else _RANDOM).format(megabytes=megabytes)
        self.least = MEGABYTE * megabytes >> (10 if compressible else 0)
        """Bytes that it takes at least, compressed."""

    def warm(self, tool: Tool) -> None:
        """Nothing: this is long, and it is not about time."""

    def ready(self, tool: Tool) -> None:
        """Make room, and write a RUN that was never run."""
        del tool
        self.registry.forget()
        write_context(self.context, f"FROM {BASE}\nRUN {self._script} # {os.urandom(8).hex()}\n")

    def reference(self, tool: Tool) -> str:
        """The image's name in the registry."""
        return f"{self.registry.host}/{tool.name}:{self.name}"

    def check_pushed(self, tool: Tool) -> None:
        """The registry has the layer, whole. NotDone."""
        sizes = self.registry.layer_sizes(tool.name, self.name)
        if max(sizes) < self.least:
            raise NotDone(f"{tool.name}: no layer of {self.least} bytes was pushed: {sizes}")

    def cleanup(self, tool: Tool) -> None:
        """Give the disk back."""
        self.registry.forget()
        run(tool.forget(self.reference(tool)))


class LargeCommitted(Large):
    """Written by a step, and made a layer."""

    verb = "committed"

    def commands(self, tool: Tool) -> Sequence[Command]:
        """Build."""
        return tool.build(self.context, self.reference(tool))

    def check_image(self, tool: Tool) -> None:
        """The file is there, whole."""
        size = tool.ask(self.reference(tool), "stat -c %s /large")
        expect(tool, "bytes of the file", str(self.megabytes * MEGABYTE), size)


class LargePushed(Large):
    """Built and pushed."""

    verb = "pushed"

    def commands(self, tool: Tool) -> Sequence[Command]:
        """Build and push."""
        return tool.publish(self.context, self.reference(tool))

    def check(self, tool: Tool, output: str) -> None:
        """The registry has the layer."""
        del output
        self.check_pushed(tool)


class LargeSaved(Large):
    """Written to an archive."""

    verb = "saved"

    def ready(self, tool: Tool) -> None:
        """Build the image."""
        super().ready(tool)
        self._archive(tool).unlink(missing_ok=True)
        run(tool.build(self.context, self.reference(tool)))

    def _archive(self, tool: Tool) -> Path:
        return self.place / f"{tool.name}.tar"

    def commands(self, tool: Tool) -> Sequence[Command]:
        """Save."""
        return tool.save(self.reference(tool), self._archive(tool))

    def check(self, tool: Tool, output: str) -> None:
        """The archive has the layer."""
        del output
        size = self._archive(tool).stat().st_size
        if size < self.least:
            raise NotDone(f"{tool.name}: the archive has {size} bytes only")

    def cleanup(self, tool: Tool) -> None:
        """Give the disk back."""
        self._archive(tool).unlink(missing_ok=True)
        super().cleanup(tool)


class LargePulled(Large):
    """Pulled, and unpacked for a container."""

    verb = "pulled"

    def ready(self, tool: Tool) -> None:
        """Build and push the image, and forget it here."""
        super().ready(tool)
        run(tool.publish(self.context, self.reference(tool)))
        self.check_pushed(tool)
        run(tool.forget(self.reference(tool)))

    def commands(self, tool: Tool) -> Sequence[Command]:
        """Pull, then run."""
        pull = tool.pull(self.reference(tool))
        return [*pull, *tool.run(self.reference(tool), "stat", "-c", "%s", "/large")] if pull else ()

    def check(self, tool: Tool, output: str) -> None:
        """The file came whole."""
        expect(tool, "bytes of the file", str(self.megabytes * MEGABYTE), output.rsplit(maxsplit=1)[-1])


def large_works(place: Path, sizes: Sizes, registry: Registry) -> Iterator[Work]:
    """All of these: random data of every size, and text of the largest."""
    for kind in (LargeCommitted, LargePushed, LargeSaved, LargePulled):
        for megabytes in sizes.large_megabytes:
            yield kind(place, sizes, registry, megabytes, compressible=False)
        yield kind(place, sizes, registry, max(sizes.large_megabytes), compressible=True)
