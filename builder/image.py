"""An image's config and history while a stage is planned, in the reference builder's form.

The config is JSON as in the OCI image specification (config.md) with Docker's additions; fields of a base image that
are not known here are kept. History texts are what `docker history` shows.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from layerstore.digest import DiffId
from layerstore.platforms import Platform

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
COMMENT = "buildkit.dockerfile.v0"

Json = dict[str, Any]


class HistoryEntry(NamedTuple):
    """One line of history; `layer` tells whether a layer belongs to it."""

    created_by: str
    layer: bool


class ImageConfig:
    """A config that instructions edit. `document` is the whole JSON, `base_history` what came with the base."""

    def __init__(
        self,
        document: Json,
        base_history: Sequence[Json] = (),
        base_layers: tuple[DiffId, ...] = (),
        history: Sequence[HistoryEntry] = (),
    ) -> None:
        self.document = document
        self.base_history = list(base_history)
        self.base_layers = base_layers
        self.history = list(history)

    @classmethod
    def scratch(cls, platform: Platform) -> ImageConfig:
        """Return the config that `FROM scratch` starts with."""
        document: Json = {"architecture": platform.architecture, "os": platform.os, "config": {"WorkingDir": "/"}}
        if platform.variant:
            document["variant"] = platform.variant
        made = cls(document)
        made.default_path()
        return made

    @classmethod
    def of_base(cls, document: Mapping[str, Any], layers: tuple[DiffId, ...]) -> ImageConfig:
        """Return what a stage on a base image starts with: its config without `created`, its history, its layers."""
        own = copy.deepcopy(dict(document))
        history = own.pop("history", None) or []
        own.pop("created", None)
        own.pop("rootfs", None)
        # Left by docker's first builder; they speak of a container that is gone.
        for name in ("container", "container_config", "docker_version", "id", "parent"):
            own.pop(name, None)
        if not isinstance(own.get("config"), dict):
            own["config"] = {}
        made = cls(own, base_history=history, base_layers=layers)
        made.default_path()
        return made

    def fork(self) -> ImageConfig:
        """Return a copy for a stage that is based on this one."""
        return ImageConfig(copy.deepcopy(self.document), self.base_history, self.base_layers, self.history)

    @property
    def platform(self) -> Platform:
        """What the image is for, which is its base's word: what was asked for may be another."""
        own = self.document
        return Platform.of(own["os"], own["architecture"], own.get("variant") or "")

    @property
    def config(self) -> Json:
        """The `config` object: what containers start with."""
        inner: Json = self.document["config"]
        return inner

    @property
    def env(self) -> dict[str, str]:
        """The environment that containers start with."""
        return dict(pair.partition("=")[::2] for pair in self.config.get("Env") or ())

    def default_path(self) -> None:
        """Append PATH to the environment if there is none, as the reference does for every stage."""
        env = self.config.setdefault("Env", []) or []
        if not any(pair.startswith("PATH=") for pair in env):
            env.append("PATH=" + DEFAULT_PATH)
        self.config["Env"] = env

    def set_env(self, key: str, value: str) -> None:
        """Replace a variable where it stands, or append it."""
        env: list[str] = self.config.setdefault("Env", [])
        for at, pair in enumerate(env):
            if pair.partition("=")[0] == key:
                env[at] = f"{key}={value}"
                return
        env.append(f"{key}={value}")

    def set_or_drop(self, name: str, value: object) -> None:
        """Set a field of `config`; an empty value takes it out, as Go's `omitempty` does."""
        if value:
            self.config[name] = value
        else:
            self.config.pop(name, None)

    def set_labels(self, labels: Iterable[tuple[str, str]]) -> None:
        """Set labels over those that are there."""
        merged = {**(self.config.get("Labels") or {}), **dict(labels)}
        self.set_or_drop("Labels", merged)

    def commit(self, created_by: str, *, layer: bool = False) -> None:
        """Append a history entry."""
        self.history.append(HistoryEntry(created_by, layer))

    def document_for(self, layers: Sequence[DiffId], made: Sequence[int], *, epoch: int | None) -> bytes:
        """Return the finished config as canonical JSON; `layers` are all of the image's, lowest first.

        `made` is when each layer was made, in nanoseconds; `epoch` takes the place of all times (SOURCE_DATE_EPOCH,
        nanoseconds). A layer found in the cache keeps its time, so a build that is all cached makes the same image
        again.
        """
        history = [*self.base_history, *self._new_history(made[len(self.base_layers) :], epoch)]
        document = dict(self.document)
        stamps = [line["created"] for line in history if line.get("created")]
        if epoch is not None:
            document["created"] = timestamp(epoch)
        elif stamps:
            document["created"] = stamps[-1]
        document["history"] = history
        document["rootfs"] = {"type": "layers", "diff_ids": list(layers)}
        document["config"] = {name: self.config[name] for name in sorted(self.config)}
        return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(
            "utf-8", "surrogateescape"
        )

    def _new_history(self, made: Sequence[int], epoch: int | None) -> list[Json]:
        """The entries above the base's.

        Those without a layer take the time of the layer before, or of the first one.
        """
        times = iter([timestamp(moment if epoch is None else epoch) for moment in made])
        stamps = [next(times, None) if entry.layer else None for entry in self.history]
        below = [line["created"] for line in self.base_history if line.get("created")]
        current = next((stamp for stamp in stamps if stamp), below[-1] if below else None)
        if epoch is not None:
            current = timestamp(epoch)
        lines = []
        for entry, stamp in zip(self.history, stamps, strict=True):
            current = stamp or current
            line: Json = {"created_by": entry.created_by, "comment": COMMENT}
            if current is not None:
                line["created"] = current
            if not entry.layer:
                line["empty_layer"] = True
            lines.append(line)
        return lines


def timestamp(moment: int) -> str:
    """Return nanoseconds since the epoch as RFC 3339 in UTC, the fraction only where there is one."""
    seconds, nanoseconds = divmod(moment, 1_000_000_000)
    fraction = f".{nanoseconds:09d}".rstrip("0").rstrip(".")
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + fraction + "Z"


def go_quote(text: str) -> str:
    """Return `text` as Go's %q prints it (strconv.Quote)."""
    out = ['"']
    for char in text:
        code = ord(char)
        if char in '"\\':
            out.append("\\" + char)
        elif char in _ESCAPES:
            out.append(_ESCAPES[char])
        elif 0xDC80 <= code <= 0xDCFF:  # a byte that was no UTF-8
            out.append(f"\\x{code - 0xDC00:02x}")
        elif char.isprintable():
            out.append(char)
        elif code < 0x80:
            out.append(f"\\x{code:02x}")
        elif code < 0x10000:
            out.append(f"\\u{code:04x}")
        else:
            out.append(f"\\U{code:08x}")
    out.append('"')
    return "".join(out)


_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}


def go_quoted_list(words: Iterable[str]) -> str:
    """Return a list as Go's %q prints it: `["a" "b c"]`."""
    return "[" + " ".join(map(go_quote, words)) + "]"


def go_list(words: Iterable[str]) -> str:
    """Return a list as Go's %v prints it: `[a b c]`."""
    return "[" + " ".join(words) + "]"


def go_duration(nanoseconds: int) -> str:
    """Return a duration as Go prints it: `1h0m0s`, `1m30s`, `2.5s`, `250ms`, `0s`."""
    if nanoseconds == 0:
        return "0s"
    sign, left = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    for unit, size in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
        if left < size * 1_000 and size < 1_000_000_000:
            return sign + _decimal(left, size) + unit
    minutes, seconds = divmod(left, 60_000_000_000)
    hours, minutes = divmod(minutes, 60)
    text = _decimal(seconds, 1_000_000_000) + "s"
    if hours:
        return f"{sign}{hours}h{minutes}m{text}"
    return f"{sign}{minutes}m{text}" if minutes else sign + text


def _decimal(amount: int, unit: int) -> str:
    whole, part = divmod(amount, unit)
    digits = len(str(unit)) - 1
    return f"{whole}.{part:0{digits}d}".rstrip("0").rstrip(".") if part else str(whole)
