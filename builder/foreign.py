"""Steps for other platforms than this machine's: refused, with what to install, where the kernel cannot run them.

Only a RUN starts programs of the image; COPY, WORKDIR and what only changes the config are done for any platform.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import LocatedError
from grammar import Diagnostic
from layerstore.platforms import Platform

if TYPE_CHECKING:
    from builder.graph import Vertex
    from layerstore import View

_INSTALL = (
    "install an emulator: qemu-user-static and binfmt-support on Debian and Ubuntu, or run"
    " `docker run --privileged --rm tonistiigi/binfmt --install {architecture}`"
)


def check(steps: Sequence[tuple[Vertex, str]], host: str, scratch: Path) -> dict[str, str]:
    """Raise LocatedError if a step is for a platform whose programs do not run here, at the first step of each.

    `steps` are RUNs and their platforms, `host` is this machine's, `scratch` a directory for trying it. Returns the
    platforms whose programs need an emulator in the image itself, with its path: `require` is for these.
    """
    from runner.foreign import Reach, emulator, reach  # noqa: PLC0415 - not for a build that is cached

    within: dict[str, str] = {}

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
        else:
            reached = reach(platform.architecture, scratch)
            if reached is Reach.HOST and (path := emulator(platform.architecture)) is not None:
                within[str(platform)] = path
            if reached is not Reach.NOWHERE:
                continue
            hint = _INSTALL.format(architecture=platform.architecture)
        message = f"this machine ({here}) cannot run programs for {platform}"
        found.append(Diagnostic(code="platform", message=message, span=vertex.span, hint=hint))
    if found:
        raise LocatedError(tuple(found))
    return within


def require(vertex: Vertex, platform: str, emulator: str, view: View) -> None:
    """Raise LocatedError if the root file system of a step, `view`, lacks the emulator that has to be in it."""
    if view.lstat(view.resolve(os.fsencode(emulator))) is not None:
        return
    message = f"programs for {platform} need {emulator}, which is not in the image: it is registered without flag F"
    hint = (
        f"{_INSTALL.format(architecture=_parse(platform).architecture)}, which register it for every image; or COPY it"
    )
    raise LocatedError((Diagnostic(code="platform", message=message, span=vertex.span, hint=hint),))


def _parse(text: str) -> Platform:
    return Platform(*text.split("/"))
