"""The memory that large layers take: committed, pushed, saved and pulled. How long that takes is not the question."""

from __future__ import annotations

import abc
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench import disks
from bench.contexts import write_context
from bench.measure import Command, run
from bench.registry import Registry
from bench.tools import BASE, Pybuild, Tool
from bench.works import MEGABYTE, Budget, NotDone, Sizes, Work, expect

_RANDOM = "dd if=/dev/urandom of=/large bs=1M count={megabytes}"
_TEXT = "yes 'All work and no play makes Jack a dull boy.' | dd of=/large bs=1M count={megabytes} iflag=fullblock"


class Layer:
    """A layer of one large file, `compressible` or not, that is made by a RUN that was never run before."""

    def __init__(self, name: str, megabytes: int, *, compressible: bool) -> None:
        self.name = name
        self.size = MEGABYTE * megabytes
        """Bytes of the file."""
        self.least = self.size >> (10 if compressible else 0)
        """Bytes that it takes at least, compressed."""
        kind = " that compresses well" if compressible else ""
        self.title = f"a layer of {megabytes / 1024:g} GB{kind}"
        script = (_TEXT if compressible else _RANDOM).format(megabytes=megabytes)
        self.dockerfile = f"FROM {BASE}\nRUN {script} # {os.urandom(8).hex()}\n"


class Large(Work):
    """Something done with a large layer. All tools do it with the smallest ones, pybuild with all.

    Works follow each other: what one built, the next one finds, and builds it only where it is taken alone.
    """

    budget = Budget(memory=100 * 10**6)
    watch = True
    verb: str

    def __init__(self, place: Path, sizes: Sizes, registry: Registry, layer: Layer) -> None:
        self.name = f"large-{self.verb}-{layer.name}"
        super().__init__(place / self.name, sizes)
        self.title = f"{layer.title} {self.verb}"
        self.layer = layer
        self.registry = registry

    def setup(self) -> None:
        """A RUN that writes the file."""
        write_context(self.context, self.layer.dockerfile)

    def warm(self, tool: Tool) -> None:
        """Nothing: this is long, and it is not about time."""

    def commands(self, tool: Tool) -> Sequence[Command]:
        """What is measured; nothing if it would take a peer longer than anybody wants to wait."""
        smallest = self.layer.size == MEGABYTE * min(self.sizes.large_megabytes)
        return self.orders(tool) if smallest or isinstance(tool, Pybuild) else ()

    @abc.abstractmethod
    def orders(self, tool: Tool) -> Sequence[Command]:
        """What is measured; empty if the tool cannot do it."""

    @property
    def tag(self) -> str:
        """The name of the image that is not pushed."""
        return f"large-{self.layer.name}:bench"

    def reference(self, tool: Tool) -> str:
        """The name of the image in the registry."""
        return f"{self.registry.host}/{tool.name}:{self.layer.name}"

    def check_pushed(self, tool: Tool) -> None:
        """The registry has the layer, whole. NotDone."""
        sizes = self.registry.layer_sizes(tool.name, self.layer.name)
        if max(sizes) < self.layer.least:
            raise NotDone(f"{tool.name}: no layer of {self.layer.least} bytes was pushed: {sizes}")

    def forget(self, tool: Tool, reference: str) -> None:
        """Give the disk back that an image took."""
        run(tool.forget(reference))
        disks.give_back(tool.place)


class LargeCommitted(Large):
    """Written by a step, and made a layer."""

    verb = "committed"

    def orders(self, tool: Tool) -> Sequence[Command]:
        """Build."""
        return tool.build(self.context, self.tag)

    def check_image(self, tool: Tool) -> None:
        """The file is there, whole."""
        expect(tool, "bytes of the file", str(self.layer.size), tool.ask(self.tag, "stat -c %s /large"))


class LargeSaved(Large):
    """Written to an archive."""

    verb = "saved"

    def ready(self, tool: Tool) -> None:
        """Build the image, unless it was."""
        run(tool.build(self.context, self.tag))

    def _archive(self, tool: Tool) -> Path:
        return self.place / f"{tool.name}.tar"

    def orders(self, tool: Tool) -> Sequence[Command]:
        """Save."""
        return tool.save(self.tag, self._archive(tool))

    def check(self, tool: Tool, output: str) -> None:
        """The archive has the layer."""
        del output
        size = self._archive(tool).stat().st_size
        if size < self.layer.least:
            raise NotDone(f"{tool.name}: the archive has {size} bytes only")

    def cleanup(self, tool: Tool) -> None:
        """Give the disk back."""
        self._archive(tool).unlink(missing_ok=True)
        disks.give_back(self.place)
        self.forget(tool, self.tag)


class LargePushed(Large):
    """Built and pushed."""

    verb = "pushed"

    def orders(self, tool: Tool) -> Sequence[Command]:
        """Build and push."""
        return tool.publish(self.context, self.reference(tool))

    def check(self, tool: Tool, output: str) -> None:
        """The registry has the layer."""
        del output
        self.check_pushed(tool)


class LargePulled(Large):
    """Pulled, and unpacked for a container."""

    verb = "pulled"

    def ready(self, tool: Tool) -> None:
        """Build and push the image, unless it was, and forget it here."""
        run(tool.publish(self.context, self.reference(tool)))
        self.check_pushed(tool)
        self.forget(tool, self.reference(tool))

    def orders(self, tool: Tool) -> Sequence[Command]:
        """Pull, then run."""
        pull = tool.pull(self.reference(tool))
        return [*pull, *tool.run(self.reference(tool), "stat", "-c", "%s", "/large")] if pull else ()

    def check(self, tool: Tool, output: str) -> None:
        """The file came whole."""
        expect(tool, "bytes of the file", str(self.layer.size), output.rsplit(maxsplit=1)[-1])

    def cleanup(self, tool: Tool) -> None:
        """Give the disk back."""
        self.registry.forget()
        self.forget(tool, self.reference(tool))


def large_works(place: Path, sizes: Sizes, registry: Registry) -> Iterator[Work]:
    """All of these, layer by layer, so that little is on the disk at a time: random data of every size, and text."""
    kinds = [(str(megabytes), megabytes, False) for megabytes in sizes.large_megabytes]
    most = max(sizes.large_megabytes)
    for name, megabytes, compressible in (*kinds, (f"{most}-text", most, True)):
        for pair in (LargeCommitted, LargeSaved), (LargePushed, LargePulled):
            layer = Layer(name, megabytes, compressible=compressible)
            yield from (kind(place, sizes, registry, layer) for kind in pair)
