"""The value of `RUN --mount`: comma-separated options (CSV, RFC 4180) as a typed mount."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable

from grammar.errors import MountError
from grammar.record import Record
from grammar.text import TRUE, WORDS, did_you_mean, quote

TYPES = ("bind", "cache", "secret", "ssh", "tmpfs")
SHARING = ("locked", "private", "shared")
KEYS = (
    "type", "from", "source", "target", "readonly", "id", "sharing", "required", "size", "mode", "uid", "gid",
    "src", "dst", "destination", "ro", "rw", "readwrite", "env",
)  # fmt: skip
ALIASES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly", "rw": "readwrite"}
_SWITCHES = ("readonly", "readwrite", "required")
_SIZE = r"([0-9]+(?:\.[0-9]+)?) ?(?:([kmgtp])i?)?b?"  # compiled where there is a tmpfs
_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_VARIABLE = re.compile(r"""[$'"\\`]""")
_WITH_OWNER = ("cache", "secret", "ssh")


class Mount(Record):
    """One mount of a RUN; what was not given is None.

    `type` is one of TYPES, `sharing` of SHARING; `mode`, `uid`, `gid` and `size` (bytes) are numbers, `env` the name of
    an environment variable. `readonly` is resolved: bind, secret and ssh are unless they were asked not to be.
    """

    type: str
    target: str | None
    source: str | None
    from_: str | None
    readonly: bool
    id: str | None
    sharing: str | None
    mode: int | None
    uid: int | None
    gid: int | None
    size: int | None
    required: bool
    env: str | None


def parse_mount(text: str, *, expand: Callable[[str], str] | None = None) -> Mount:
    """Return the mount that the value of `--mount` describes; MountError.

    `expand` replaces the variables in the values of options, all but `from`, which takes none. Without it values that
    hold variables stay unchecked, and those that have to be numbers or words of a list are left out of the result.
    """
    options = _options(text, expand)
    kind = options.get("type", "bind")
    kind = _one_of("mount type", kind, TYPES)
    mount = Mount(
        type=kind or "bind",
        target=options.get("target"),
        source=options.get("source"),
        from_=options.get("from"),
        readonly=_readonly(options, kind),
        id=options.get("id"),
        sharing=_one_of("sharing value", options.get("sharing"), SHARING),
        mode=_number(options, "mode", 8),
        uid=_number(options, "uid", 10),
        gid=_number(options, "gid", 10),
        size=_size(options.get("size")),
        required=_flag(options, "required"),
        env=options.get("env"),
    )
    if kind is not None:
        _check(mount, options)
    return mount


def _options(text: str, expand: Callable[[str], str] | None) -> dict[str, str | None]:
    """The options by their main names; None stands for a value that cannot be known yet."""
    options: dict[str, str | None] = {}
    if not text:
        raise MountError("failed to parse csv mounts: EOF", hint=f"the keys are {', '.join(KEYS)}")
    for field in _fields(text):
        key, equals, value = field.partition("=")
        key = key.lower()
        name = ALIASES.get(key, key)
        if not equals:
            if name not in _SWITCHES:
                near = f"write {key}=VALUE" if key in KEYS else f"the keys are {', '.join(KEYS)}"
                raise MountError(f"invalid field '{field}' must be a key=value pair", hint=near)
            value = "true"
        if key not in KEYS:
            raise MountError(
                f"unexpected key '{key}' in '{field}'{did_you_mean(key, KEYS)}",
                hint=f"the keys are {', '.join(KEYS)}",
            )
        known: str | None = value
        if name == "from":
            if re.search(r"\$.", value):
                raise MountError(
                    "'from' doesn't support variable expansion, define alias stage instead",
                    hint="add a stage `FROM $NAME AS alias` and write from=alias",
                )
        elif expand is not None:
            known = expand(value)
        elif _VARIABLE.search(value) and name not in ("source", "target", "id", "env"):
            known = None
        if name in _SWITCHES and known is not None and known not in WORDS:
            raise MountError(f"invalid value for {key}: {known}", hint="write true or false")
        options[name] = known
        if name in ("readonly", "readwrite"):
            options.pop("readwrite" if name == "readonly" else "readonly", None)
    return options


def _fields(text: str) -> list[str]:
    if '"' not in text:
        return text.split(",")
    from grammar.csvline import QUOTING, fields  # noqa: PLC0415 - few mounts have quotes in them

    try:
        return fields(text)
    except ValueError as error:
        raise MountError(f"failed to parse csv mounts: {error}", hint=QUOTING) from None


def _one_of(what: str, value: str | None, known: tuple[str, ...]) -> str | None:
    if value is None:
        return None
    if value.lower() in known:
        return value.lower()
    raise MountError(
        f"unsupported {what} {quote(value)}{did_you_mean(value, known)}", hint=f"use one of {', '.join(known)}"
    )


def _flag(options: dict[str, str | None], name: str) -> bool:
    return options.get(name) in TRUE


def _readonly(options: dict[str, str | None], kind: str | None) -> bool:
    if "readonly" in options:
        return _flag(options, "readonly")
    if "readwrite" in options:
        return not _flag(options, "readwrite")
    return kind not in ("cache", "tmpfs")


def _number(options: dict[str, str | None], name: str, base: int) -> int | None:
    value = options.get(name)
    if value is None:
        return None
    digits = "01234567" if base == 8 else "0123456789"
    if not value or value.strip(digits) or int(value, base) >= 1 << 32:
        hint = "write an octal number such as 0755" if base == 8 else "write a number"
        raise MountError(f"invalid value {value} for {name}", hint=hint)
    return int(value, base)


def _size(value: str | None) -> int | None:
    if value is None:
        return None
    match = re.fullmatch(_SIZE, value, re.IGNORECASE)
    if match is None:
        raise MountError(f"invalid value for size: {value}", hint="write bytes, or a number with k, m or g")
    return int(float(match[1]) * 1024 ** _UNITS[(match[2] or "").lower()])


def _check(mount: Mount, options: dict[str, str | None]) -> None:
    """Refuse options that the type of mount does not have."""
    kind = mount.type
    if kind not in _WITH_OWNER:
        for name in ("mode", "uid", "gid"):
            if name in options:
                raise MountError(
                    f'{name} not allowed for "{kind}" type mounts', hint=f"{name} needs type=cache or secret"
                )
    if "required" in options and kind not in ("secret", "ssh"):
        raise MountError(f"unexpected key 'required' for mount type '{kind}'", hint="required needs type=secret or ssh")
    if "size" in options and kind != "tmpfs":
        raise MountError(f"unexpected key 'size' for mount type '{kind}'", hint="size needs type=tmpfs")
    if kind == "secret":
        _check_secret(mount, options)
    if options.get("sharing") and kind != "cache":
        raise MountError(f"invalid cache sharing set for {kind} mount", hint="sharing needs type=cache")
    if mount.target and mount.target.startswith("/") and posixpath.normpath(mount.target).strip("/") == "":
        raise MountError('invalid mount target "/"', hint="mount on a directory below /")


def _check_secret(mount: Mount, options: dict[str, str | None]) -> None:
    if mount.from_:
        raise MountError("secret mount should not have a from", hint="secrets come from `--secret id=…`")
    if options.get("sharing"):
        raise MountError("secret mount should not define sharing", hint="remove sharing=")
    if not (mount.source or mount.target or mount.id):
        raise MountError("invalid secret mount. one of source, target required", hint="name the secret with id=")
    if mount.source and mount.id:
        raise MountError("both source and id can't be set", hint="keep id=")
