"""Steps for other platforms than this machine's: refused, with what to install, where the kernel cannot run them.

Only a RUN starts programs of the image; COPY, WORKDIR and what only changes the config are done for any platform.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import LocatedError
from grammar import Diagnostic
from layerstore.platforms import Platform

if TYPE_CHECKING:
    from builder.graph import Vertex

_INSTALL = (
    "install an emulator: qemu-user-static and binfmt-support on Debian and Ubuntu, or run"
    " `docker run --privileged --rm tonistiigi/binfmt --install {architecture}`"
)


def check(steps: Sequence[tuple[Vertex, str]], host: str, scratch: Path) -> None:
    """Raise LocatedError if a step is for a platform whose programs do not run here, at the first step of each.

    `steps` are RUNs and their platforms, `host` is this machine's, `scratch` a directory for trying it.
    """
    from runner.foreign import Reach, reach  # noqa: PLC0415 - nothing of the runner is loaded for a cached build

    here = _parse(host)
    first: dict[Platform, Vertex] = {}
    for vertex, text in steps:
        first.setdefault(_parse(text), vertex)
    found = []
    for platform, vertex in first.items():
        # A newer or older variant of the same processor may do; its programs say so themselves if it does not.
        if (platform.os, platform.architecture) == (here.os, here.architecture):
            continue
        if platform.os != here.os:
            hint = f"build it on a machine with {platform.os}, or without RUN"
        elif reach(platform.architecture, scratch) is Reach.NOWHERE:
            hint = _INSTALL.format(architecture=platform.architecture)
        else:
            continue
        message = f"this machine ({here}) cannot run programs for {platform}"
        found.append(Diagnostic(code="platform", message=message, span=vertex.span, hint=hint))
    if found:
        raise LocatedError(tuple(found))


def _parse(text: str) -> Platform:
    return Platform(*text.split("/"))
