"""RUN --device: which devices of the host a build was granted, and what of them a step gets.

What devices there are is known elsewhere (`runner/cdi.py`). Names, grants and their errors follow BuildKit's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from builder.errors import LocatedError, UsageError
from builder.ops import DeviceRequest, RunOp
from grammar import Diagnostic, Severity, Span, Word, parse_device
from grammar.csvline import fields
from runner.cdi import Devices
from runner.errors import DeviceError

if TYPE_CHECKING:
    from builder.graph import Vertex
    from runner.cdi import Injected
    from runner.spec import Spec


class Grant(NamedTuple):
    """What `--allow device` gives: all devices if `name` is empty; under `alias`, RUN asks for `name` by that name."""

    name: str = ""
    alias: str = ""


def parse_grant(text: str) -> Grant:
    """Return what `device[=NAME[,alias=ALIAS]]` grants; UsageError."""
    _, _, value = text.partition("=")
    if not value:
        return Grant()
    try:
        name, *options = fields(value)
    except ValueError as error:
        raise UsageError(f"--allow {text}: {error}", hint="write device=NAME[,alias=ALIAS]") from None
    alias = ""
    for option in options:
        key, equals, alias = option.partition("=")
        if key != "alias" or not equals:
            raise UsageError(f"--allow {text}: {option} is not alias=ALIAS", hint="write device=NAME[,alias=ALIAS]")
    try:
        Devices({}).find(name)
    except DeviceError as error:
        raise UsageError(f"--allow {text}: {error.message}", hint=error.hint) from error
    return Grant(name, alias)


class Grants:
    """What one build was granted."""

    def __init__(self, allow: Collection[str], directories: Iterable[Path]) -> None:
        """`allow` are entitlements, `device` as `parse_grant` takes it; `directories` as in `Devices.load`."""
        grants = [parse_grant(text) for text in sorted(allow) if text.partition("=")[0] == "device"]
        self._all = any(not grant.name for grant in grants)
        self._aliases = {grant.alias: grant.name for grant in grants if grant.alias}
        self._names = [grant.name for grant in grants if not grant.alias]
        self._directories = tuple(directories)
        self._known: Devices | None = None

    def request(self, word: Word) -> DeviceRequest:
        """Return what a value of --device asks for; LocatedError if the build was not granted that.

        Where all is granted nothing is looked up: a step that is cached does without its devices.
        """
        device = parse_device(word.text)
        asked = DeviceRequest(name=device.name, required=device.required)
        if self._all:
            return asked
        if device.name in self._aliases:
            return DeviceRequest(name=self._aliases[device.name], required=device.required)
        if self._known is None:
            self._known = Devices.load(self._directories)
        try:
            found = _found(self._known, asked)
            granted = {name for one in self._names for name in self._known.find(one)}
        except DeviceError as error:
            raise _located(error.message, error.hint, word.span) from error
        refused = [name for name in found if name not in granted and not self._known.auto_allows(name)]
        if refused:
            several = len(refused) > 1
            message = f"{', '.join(refused)} {'are' if several else 'is'} requested by the build but not allowed"
            hint = f"pass --allow device={device.name}, or --allow device for every device"
            raise _located(f"device{'s' if several else ''} {message}", hint, word.span)
        return asked


def check(steps: Iterable[Vertex], known: Devices) -> None:
    """Raise LocatedError for the first device that one of `steps` cannot be given, or cannot do without."""
    for vertex in steps:
        assert isinstance(vertex.op, RunOp)
        for request, span in zip(vertex.op.devices, vertex.words, strict=True):
            try:
                known.edits(_found(known, request))
            except DeviceError as error:
                raise _located(error.message, error.hint, span) from error


def give(vertex: Vertex, spec: Spec, known: Devices) -> tuple[Injected, list[Diagnostic]]:
    """Return the container of a step with its devices, and a warning for each that it has to do without. LocatedError.

    The errors are those of `check`, and what the host lacks although it is described.
    """
    assert isinstance(vertex.op, RunOp)
    check((vertex,), known)
    names: list[str] = []
    warnings = []
    for request, span in zip(vertex.op.devices, vertex.words, strict=True):
        found = known.find(request.name)
        names += found
        if not found:
            message = f"device {request.name} is not there: the step runs without it"
            warnings.append(
                Diagnostic(
                    severity=Severity.WARNING, code="device", message=message, span=span, hint=known.advice()
                )
            )  # fmt: skip
    try:
        return known.inject(spec, names), warnings
    except DeviceError as error:
        # Which of several it was, the message tells.
        raise _located(error.message, error.hint, vertex.words[0]) from error


def _found(known: Devices, request: DeviceRequest) -> tuple[str, ...]:
    return known.require(request.name) if request.required else known.find(request.name)


def _located(message: str, hint: str, span: Span | None) -> LocatedError:
    return LocatedError((Diagnostic(code="device", message=message, span=span, hint=hint),))
