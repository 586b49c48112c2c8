"""Rules about packages: what an installation leaves behind, and which versions it asks for."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from grammar.ast import Run
from grammar.lint.installs import installs
from grammar.lint.planned import PlannedFile
from grammar.lint.rule import PYBUILD, STYLE, Finding, GraphRule, found
from grammar.lint.shell import Command, Script, script_of
from grammar.mount import parse_mount
from grammar.text import quote

_LISTS = "/var/lib/apt/lists"


class AptListsNotRemoved(GraphRule):
    """apt-get leaves its package lists, tens of megabytes, in a layer of the image.

    What it does: it looks at RUNs with apt-get or apt in the stages that an image is based on. The lists have to be
    removed in the same RUN, or lie in a cache mount or a tmpfs. Stages that files are only copied from are not looked
    at.

    Why is this bad: what a later RUN removes stays in the layer below it.

    Bad:

        RUN apt-get update && apt-get install -y curl

    Good:

        RUN apt-get update && apt-get install -y curl && rm -rf /var/lib/apt/lists/*
    """

    description = "apt-get should leave no package lists in the image"
    group = PYBUILD

    def check(self, file: PlannedFile) -> Iterator[Finding]:
        """Yield each RUN that installs and does not clean up."""
        for _, step in file.shipped_steps():
            run = step.instruction
            if not isinstance(run, Run) or not step.posix or _is_mounted(run):
                continue
            script = script_of(run)
            if _installs_by_apt(script) and not _is_cleaned(script):
                message = f"The package lists stay in the layer: end with `rm -rf {_LISTS}/*`, or mount a cache there"
                yield found(run, message)


def _installs_by_apt(script: Script) -> bool:
    return any(one.name in ("apt", "apt-get", "aptitude") and "install" in one.words for one in script.commands)


def _is_cleaned(script: Script) -> bool:
    if any(one.name in ("apt", "apt-get") and "distclean" in one.words for one in script.commands):
        return True
    return any(
        one.name not in ("apt", "apt-get", "mkdir") and "/var/lib/apt" in " ".join(one.words) for one in script.commands
    )


def _is_mounted(run: Run) -> bool:
    mounts = (parse_mount(word.text) for word in run.mounts)
    targets = ((mount.target or "").rstrip("/") for mount in mounts if mount.type in ("cache", "tmpfs"))
    return any(target and f"{_LISTS}/".startswith(f"{target}/") for target in targets)


class _PinRule(GraphRule):
    """A rule about versions of the packages of one manager."""

    group = STYLE
    experimental = True
    manager: ClassVar[tuple[str, ...]]
    form: ClassVar[str]

    def is_constrained(self, _command: Command) -> bool:
        """Say whether the versions of all packages are written elsewhere."""
        return False

    @abstractmethod
    def is_pinned(self, package: str) -> bool:
        """Say whether a package is asked for in one version."""

    def check(self, file: PlannedFile) -> Iterator[Finding]:
        """Yield each RUN that installs a package of any version."""
        for stage in file.stages.values():
            for step in stage.steps:
                if isinstance(step.instruction, Run) and step.posix:
                    yield from self._loose(step.instruction)

    def _loose(self, run: Run) -> Iterator[Finding]:
        for command in script_of(run).commands:
            install = installs(command)
            if install is None or install.family not in self.manager or self.is_constrained(command):
                continue
            loose = [one for one in install.packages if "$" not in one and not self.is_pinned(one)]
            if loose:
                names = ", ".join(quote(one) for one in loose)
                yield found(run, f"No version is asked for of {names}: write {self.form}")


class PinAptPackages(_PinRule):
    """Packages are installed by apt-get in whatever version there is today.

    Why is this bad: a build of tomorrow has other packages. Most distributions keep old versions for a short time only,
    which is why the rule has to be asked for.

    Bad:

        RUN apt-get install -y curl

    Good:

        RUN apt-get install -y curl=7.88.1-10+deb12u5
    """

    description = "Packages of apt-get should have a version"
    manager = ("apt",)
    form = "name=version"

    def is_pinned(self, package: str) -> bool:
        """A version, or the release that it is from."""
        return "=" in package or "/" in package


class PinApkPackages(_PinRule):
    """Packages are installed by apk in whatever version there is today.

    Why is this bad: a build of tomorrow has other packages. Alpine keeps no old versions, which is why the rule has to
    be asked for.

    Bad:

        RUN apk add --no-cache curl

    Good:

        RUN apk add --no-cache curl=8.5.0-r0
    """

    description = "Packages of apk should have a version"
    manager = ("apk",)
    form = "name=version"

    def is_pinned(self, package: str) -> bool:
        """A version, or a range of versions."""
        return re.search(r"[=<>~]", package) is not None


class PinPipPackages(_PinRule):
    """Packages are installed by pip in whatever version there is today.

    Why is this bad: a build of tomorrow has other packages, and may not work.

    Bad:

        RUN pip install flask

    Good:

        RUN pip install flask==3.0.2
        RUN pip install -r requirements.txt
    """

    description = "Packages of pip should have a version"
    manager = ("pip",)
    form = "name==version, or install a requirements file"

    def is_pinned(self, package: str) -> bool:
        """A version, a range, or a place."""
        return re.search(r"[=<>~!@]|://", package) is not None

    def is_constrained(self, command: Command) -> bool:
        """A constraints file says more."""
        return bool({"-c", "--constraint"} & set(command.words))


class PinNpmPackages(_PinRule):
    """Packages are installed by npm, yarn or pnpm by name and in whatever version there is today.

    Why is this bad: a build of tomorrow has other packages, and may not work.

    Bad:

        RUN npm install -g serve

    Good:

        RUN npm install -g serve@14.2.1
    """

    description = "Packages of npm should have a version"
    manager = ("npm", "pnpm", "yarn")
    form = "name@version"

    def is_pinned(self, package: str) -> bool:
        """A version or a tag behind the name, whose scope begins with the same character."""
        return "@" in package[1:] or "://" in package


class PinBaseImage(GraphRule):
    """A base image without a tag, or with the tag latest, is another one tomorrow.

    Why is this bad: the same Dockerfile then makes other images, and what breaks is not seen in its history.

    Bad:

        FROM debian
        FROM node:latest

    Good:

        FROM debian:12.5
        FROM node@sha256:b4f0e0bdeb578043c1ea6862f0d40cc4afe32a4a582f3be235a3b164422be228
    """

    description = "Base images should have a tag other than latest, or a digest"
    group = STYLE
    experimental = True

    def check(self, file: PlannedFile) -> Iterator[Finding]:
        """Yield each FROM with an image of that kind."""
        for stage in file.stages.values():
            name = stage.image
            if not name or name == "scratch" or "@" in name:
                continue
            tag = name.rpartition("/")[2].partition(":")[2]
            if tag in ("", "latest"):
                yield found(
                    stage.stage.from_, f"Base image {quote(name)} has no tag that stays: name a version or a digest"
                )
