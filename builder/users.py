"""Users and groups by name, as an image's own `etc/passwd` and `etc/group` have them.

The rules are docker's (moby/sys `user.GetExecUser`), recorded in `tests/cases/run/user-and-groups`. It knows nothing of
the host's users.
"""

from __future__ import annotations

import re
from typing import NamedTuple, Protocol

from builder.errors import BuildError

PASSWD = b"etc/passwd"
GROUP = b"etc/group"
_LIMIT = 16 << 20
_MAX_ID = (1 << 31) - 1
_NUMBER = re.compile(r"[+-]?[0-9]+\Z")


class Files(Protocol):
    """What is read from: a `layerstore` view, or anything that reads files below a root."""

    def read(self, path: bytes, *, limit: int = ...) -> bytes | None:
        """Return what the file at `path` holds, None if there is none; symlinks are followed inside the root."""
        ...


class User(NamedTuple):
    """Who a process is.

    `additional_gids` is what setgroups(2) gets: `gid` first, then the supplementary groups (docker includes the primary
    group since CVE-2022-36109). `home` is an absolute path inside the image.
    """

    uid: int
    gid: int
    additional_gids: tuple[int, ...]
    home: str


class UserLookupError(BuildError):
    """A user or group that the image's databases do not name, or an ID out of range."""


class _Account(NamedTuple):
    name: str
    uid: int
    gid: int
    home: str


class _Group(NamedTuple):
    name: str
    gid: int
    members: tuple[str, ...]


def lookup_user(view: Files, text: str) -> User:
    """Resolve `text`, a USER value (`user`, `uid`, `user:group`, `uid:gid`, ``, `:group`), against `view`'s files.

    A number is always an ID and need not be in the databases: an unknown uid has gid 0 and home `/`. The first matching
    line wins. Supplementary groups are those that list the user, unless a group is given. Raises UserLookupError.
    """
    wanted, _, wanted_group = text.partition(":")
    uid, gid, home = 0, 0, "/"
    number = _number(wanted)
    account = _find_account(view, wanted, number)
    if account is not None:
        uid, gid, home = account.uid, account.gid, account.home or "/"
    elif number is not None:
        uid = _in_range(number, "user", wanted)
    elif wanted:
        raise UserLookupError(
            f"unable to find user {wanted}: no matching entries in passwd file",
            hint="use a numeric ID, or create the user in the image (RUN adduser …)",
        )
    groups: tuple[int, ...] = ()
    if wanted_group:
        gid = lookup_group(view, wanted_group)
    elif account is not None and account.name:
        groups = tuple(group.gid for group in _groups(view) if account.name in group.members)
    return User(uid, gid, (gid, *(other for other in dict.fromkeys(groups) if other != gid)), home)


def lookup_group(view: Files, text: str) -> int:
    """Resolve a group's name or number to its ID against `etc/group` of `view`. Raises UserLookupError."""
    number = _number(text)
    if number is not None:
        return _in_range(number, "group", text)
    for group in _groups(view):
        if group.name == text:
            return group.gid
    raise UserLookupError(
        f"unable to find group {text}: no matching entries in group file",
        hint="use a numeric ID, or create the group in the image (RUN addgroup …)",
    )


def _find_account(view: Files, wanted: str, number: int | None) -> _Account | None:
    uid = 0 if not wanted else number
    for fields in _lines(view, PASSWD):
        name, _password, uid_text, gid_text, _gecos, home = (*fields, "", "", "", "", "", "")[:6]
        account = _Account(name, _number(uid_text) or 0, _number(gid_text) or 0, home)
        if account.uid == uid if uid is not None else name == wanted:
            return account
    return None


def _groups(view: Files) -> list[_Group]:
    found = []
    for fields in _lines(view, GROUP):
        name, _password, gid_text, members = (*fields, "", "", "", "")[:4]
        found.append(_Group(name, _number(gid_text) or 0, tuple(members.split(","))))
    return found


def _lines(view: Files, path: bytes) -> list[list[str]]:
    # Not validated: a short line has empty fields and an ID that is no number is 0, as the reference reads them.
    text = (view.read(path, limit=_LIMIT) or b"").decode("utf-8", "surrogateescape")
    return [line.strip().split(":") for line in text.split("\n") if line.strip()]


def _number(text: str) -> int | None:
    return int(text) if _NUMBER.match(text) else None


def _in_range(number: int, what: str, text: str) -> int:
    if 0 <= number <= _MAX_ID:
        return number
    raise UserLookupError(f"uids and gids must be in range 0-{_MAX_ID}: {what} {text}", hint="use a smaller number")
