"""`--output` values as data: what is written, where, and how (docker buildx `--output type=…,dest=…`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from builder.errors import UsageError

ARCHIVES = ("oci", "docker")
TYPES = ("image", "registry", "oci", "docker", "tar", "local", "cacheonly")
COMPRESSIONS = ("uncompressed", "gzip", "zstd")
_LAYERS = ("compression", "compression-level", "rewrite-timestamp")
_KEYS = {
    "image": frozenset({"name", "push", *_LAYERS}),
    "registry": frozenset({"name", "push", *_LAYERS}),
    "oci": frozenset({"dest", "name", "tar", *_LAYERS}),
    "docker": frozenset({"dest", "name", "tar", *_LAYERS}),
    "tar": frozenset({"dest", "platform-split"}),
    "local": frozenset({"dest", "platform-split", "mode"}),
    "cacheonly": frozenset(),
}


class Output(NamedTuple):
    """One output. `dest` is None for standard output; `names` are references besides those of `--tag`.

    `rewrite_timestamp` clamps the times of files in new layers to SOURCE_DATE_EPOCH. `platform_split` puts the files of
    each platform into a directory of its own, None does if there are several. `delete` takes away what is in `dest` and
    not in the image.
    """

    type: str
    dest: Path | None = None
    names: tuple[str, ...] = ()
    push: bool = False
    tar: bool = True
    compression: str | None = None
    level: int | None = None
    rewrite_timestamp: bool = False
    platform_split: bool | None = None
    delete: bool = False


def parse_output(text: str, *, cwd: Path) -> Output:
    """Return what `text` asks for: `type=oci,dest=image.tar`, or a bare path for type local, `-` for a tar on stdout.

    UsageError names the key that is wrong.
    """
    if "=" not in text:
        return Output(type="tar") if text == "-" else Output(type="local", dest=cwd / text)
    fields = _fields(text)
    kind = fields.pop("type", "")
    if kind not in TYPES:
        raise UsageError(f"--output: unknown type {kind!r}", hint=f"choose one of {', '.join(TYPES)}")
    unknown = sorted(set(fields) - _KEYS[kind])
    if unknown:
        known = ", ".join(sorted(_KEYS[kind])) or "none"
        raise UsageError(f"--output type={kind} has no key {unknown[0]!r}", hint=f"its keys: {known}")
    dest = _dest(kind, fields, cwd)
    names = tuple(name for name in fields.get("name", "").split(",") if name)
    return Output(
        type=kind,
        dest=dest,
        names=names,
        push=kind == "registry" or _flag(fields, "push", default=False),
        tar=_flag(fields, "tar", default=True),
        compression=_compression(fields),
        level=_level(fields),
        rewrite_timestamp=_flag(fields, "rewrite-timestamp", default=False),
        platform_split=_flag(fields, "platform-split", default=False) if "platform-split" in fields else None,
        delete=_mode(fields) == "delete",
    )


def _fields(text: str) -> dict[str, str]:
    import csv  # noqa: PLC0415 - not for --push

    fields: dict[str, str] = {}
    for field in next(csv.reader([text], strict=True)):
        key, equals, value = field.partition("=")
        if not equals:
            raise UsageError(f"--output: {field!r} has no value", hint="write KEY=VALUE, separated by commas")
        fields[key.strip().lower()] = value
    return fields


def _dest(kind: str, fields: Mapping[str, str], cwd: Path) -> Path | None:
    text = fields.get("dest", "")
    if text == "-" or (not text and kind in ("oci", "docker", "tar")):
        if kind == "local":
            raise UsageError("--output type=local writes a directory", hint="give dest=DIRECTORY, or use type=tar")
        return None
    if not text and kind == "local":
        raise UsageError("--output type=local has no dest", hint="give dest=DIRECTORY")
    return cwd / text if text else None


def _flag(fields: Mapping[str, str], key: str, *, default: bool) -> bool:
    text = fields.get(key)
    if text is None:
        return default
    if text.lower() not in ("true", "false", "1", "0"):
        raise UsageError(f"--output: {key}={text} is neither true nor false")
    return text.lower() in ("true", "1")


def _mode(fields: Mapping[str, str]) -> str:
    text = fields.get("mode", "copy")
    if text not in ("copy", "delete"):
        raise UsageError(f"--output: unknown mode {text!r}", hint="choose copy or delete")
    return text


def _compression(fields: Mapping[str, str]) -> str | None:
    text = fields.get("compression")
    if text is not None and text not in COMPRESSIONS:
        raise UsageError(f"--output: unknown compression {text!r}", hint=f"choose one of {', '.join(COMPRESSIONS)}")
    return text


def _level(fields: Mapping[str, str]) -> int | None:
    text = fields.get("compression-level")
    if text is None:
        return None
    if not text.lstrip("-").isdigit():
        raise UsageError(f"--output: compression-level={text} is not a whole number")
    return int(text)
