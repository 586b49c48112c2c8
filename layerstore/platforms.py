"""Platforms in one normal form: operating system, architecture, variant (OCI image-index.md, containerd's rules).

Knows nothing of this machine; the caller says what it is.
"""

from __future__ import annotations

from typing import NamedTuple, Self

from layerstore.errors import StoreError

_ARCHITECTURES = {
    "aarch64": ("arm64", ""),
    "armel": ("arm", "v6"),
    "armhf": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
    "armv8l": ("arm", "v8"),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "loongarch64": ("loong64", ""),
    "x86-64": ("amd64", ""),
    "x86_64": ("amd64", ""),
}
_KNOWN = {"386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le"}
_KNOWN |= {"riscv64", "s390x", "wasm"}
_SYSTEMS = {"aix", "android", "darwin", "dragonfly", "freebsd", "illumos", "linux", "macos", "netbsd", "openbsd"}
_SYSTEMS |= {"plan9", "solaris", "wasip1", "windows"}
_COMPONENT = "^[A-Za-z0-9_.-]+$"
_SYSTEM = r"^([A-Za-z0-9_-]+)(?:\\(([A-Za-z0-9_.%-]*)((?:\\+[A-Za-z0-9_.%-]+)*)\\))?$"
_FORM = "write OS/ARCH[/VARIANT], for example linux/arm64"


class InvalidPlatform(StoreError):
    """Text that is no platform."""


class Platform(NamedTuple):
    """What an image runs on, normalised: `arm64` has no variant v8, `amd64` none of v1, `arm` always has one."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def of(cls, os: str, architecture: str, variant: str = "") -> Self:
        """Normalise what an image or index says of itself."""
        os = os.lower()
        architecture = architecture.lower()
        variant = variant.lower()
        if architecture in _ARCHITECTURES:
            architecture, implied = _ARCHITECTURES[architecture]
            variant = variant or implied
        if variant.isdigit():
            variant = "v" + variant
        if (architecture, variant) in (("arm64", "v8"), ("amd64", "v1")):
            variant = ""
        elif architecture == "arm" and not variant:
            variant = "v7"
        return cls("darwin" if os == "macos" else os, architecture, variant)

    @classmethod
    def host(cls, machine: str) -> Self:
        """Return the platform of a Linux host whose `uname -m` is `machine`."""
        return cls.of("linux", machine)

    @classmethod
    def parse(cls, text: str, *, host: Platform) -> Self:
        """Take `OS`, `ARCH`, `OS/ARCH` or `OS/ARCH/VARIANT`; the rest is that of `host`. Raises InvalidPlatform."""
        parts = text.strip().split("/")
        if "*" in text:
            raise InvalidPlatform(f'"{text}": wildcards not yet supported: invalid argument', hint=_FORM)
        for at, part in enumerate(parts):
            if not part or not all(c.isalnum() or c in "_-." for c in part):
                what = "component" if at else "OS component"
                form = f'"{_COMPONENT if at else _SYSTEM}": invalid argument'
                which = "platform specifier" if at else "OSAndVersion specifier"
                message = f'"{part}" is an invalid {what} of "{text}": {which} component must match {form}'
                raise InvalidPlatform(message, hint=_FORM)
        if len(parts) > 3:
            raise InvalidPlatform(f'"{text}": cannot parse platform specifier: invalid argument', hint=_FORM)
        if len(parts) > 1:
            return cls.of(*parts)
        if parts[0].lower() in _SYSTEMS:
            return cls.of(parts[0], host.architecture, host.variant)
        platform = cls.of(host.os, parts[0])
        if platform.architecture not in _KNOWN:
            raise InvalidPlatform(f'"{text}": unknown operating system or architecture: invalid argument', hint=_FORM)
        return platform

    @property
    def candidates(self) -> tuple[Platform, ...]:
        """The platforms whose images run here, best first: newer ones of a family run what older ones do."""
        return tuple(Platform(self.os, *pair) for pair in _runnable(self.architecture, self.variant))

    def rank(self, other: Platform) -> int | None:
        """Say how well an image for `other` fits here: 0 is exact, more is worse, None is not at all."""
        candidates = self.candidates
        return candidates.index(other) if other in candidates else None

    def __str__(self) -> str:
        return "/".join(part for part in self if part)


def _runnable(architecture: str, variant: str) -> list[tuple[str, str]]:
    number = int(variant[1:]) if variant[:1] == "v" and variant[1:].isdigit() else 0
    if architecture == "amd64":
        older = [("amd64", f"v{n}" if n > 1 else "") for n in range(number - 1, 0, -1)]
        return [(architecture, variant), *older, ("386", "")]
    if architecture == "arm":
        return [(architecture, variant), *(("arm", f"v{n}") for n in range(number - 1, 4, -1))]
    if architecture == "arm64":
        older = [("arm64", f"v{n}" if n > 8 else "") for n in range(number - 1, 7, -1)]
        return [(architecture, variant), *older, *_runnable("arm", "v8")]
    return [(architecture, variant)]
