"""The argument of --chown: a user and group, by number or by the names in the image's passwd and group files.

The rules are BuildKit's for copies, which are laxer than those for running processes (`builder/users.py`): a name that
the image does not know is no error, and a lone number is user and group.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from builder.filetree import FileTree
from builder.users import UserLookupError, lookup_group, lookup_user

_NUMBER = re.compile(r"[+-]?[0-9]+\Z")


class Owner(NamedTuple):
    """User and group IDs."""

    uid: int
    gid: int


class OwnerError(ValueError):
    """A --chown that cannot be resolved; the text is the whole message."""


def needs_names(chown: str) -> bool:
    """Say whether `chown` has a name that must be looked up in the image."""
    return any(_number(part) is None for part in chown.split(":", 1))


def resolve_owner(chown: str, tree: FileTree | None) -> Owner:
    """Resolve `chown` in `tree`, the image as it was before the step (None: an empty one, which knows no names).

    `root` is 0 everywhere. An unknown user is 0, an unknown group stays what the user brought along: its group by
    passwd, or for a number the same number; an empty group after the colon is 0. A number that is no 32-bit integer is
    taken for a name. OwnerError for a name where there is no image.
    """
    user, separator, group = chown.partition(":")
    uid = gid = _number(user)
    if uid is None or gid is None:
        if tree is None:
            raise OwnerError("invalid user index: -1")
        uid, gid = _user(user, tree)
    if separator:
        number = _number(group) if group else 0
        if number is not None:
            gid = number
        elif tree is None:
            raise OwnerError("invalid user index: -1")  # of groups, too
        else:
            gid = _group(group, tree, otherwise=gid)
    return Owner(uid, gid)


def _number(text: str) -> int | None:
    if text == "root":
        return 0
    if not _NUMBER.match(text) or not -(1 << 31) <= (number := int(text)) < 1 << 31:
        return None
    # The kernel's IDs have no sign, and its -1 leaves the owner as it is: root, as everything in a context is.
    return 0 if number == -1 else number & 0xFFFFFFFF


def _user(name: str, tree: FileTree) -> tuple[int, int]:
    if not name:
        return 0, 0
    try:
        user = lookup_user(tree, name)
    except UserLookupError:
        return 0, 0
    return _valid(user.uid), _valid(user.gid)


def _group(name: str, tree: FileTree, *, otherwise: int) -> int:
    try:
        return _valid(lookup_group(tree, name))
    except UserLookupError:
        return otherwise


def _valid(number: int) -> int:
    """Return an ID of a passwd or group file; what the kernel has no such ID for leaves root as the owner."""
    return number if 0 <= number < 0xFFFFFFFF else 0
