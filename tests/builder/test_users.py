"""USER values against an image's passwd and group files."""

from __future__ import annotations

import pytest

from builder.users import User, UserLookupError, lookup_group, lookup_user


class Databases:
    """A root with nothing but the two databases."""

    def __init__(self, passwd: str | None, group: str | None) -> None:
        self.files = {b"etc/passwd": passwd, b"etc/group": group}

    def read(self, path: bytes, *, limit: int = 1 << 20) -> bytes | None:
        text = self.files.get(path)
        return None if text is None else text.encode()


IMAGE = Databases(
    "root:x:0:0:root:/root:/bin/sh\n"
    "daemon:x:1:1:daemon:/usr/sbin:/bin/false\n"
    "bin:x:2:2:bin:/bin:/bin/false\n"
    "mira:x:2000:2001:Mira:/home/mira:/bin/sh\n"
    "mira:x:9:9::/second:/bin/sh\n"
    "short:x:77\n"
    "\n"
    "12:x:55:56::/digits:\n",
    "root:x:0:\nbin:x:2:\nmira:x:2001:\nnet:x:2002:mira\ndisk:x:2003:bin,mira\nagain:x:2002:mira\n",
)


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("", User(0, 0, (0,), "/root")),
        ("root", User(0, 0, (0,), "/root")),
        ("mira", User(2000, 2001, (2001, 2002, 2003), "/home/mira")),
        ("2000", User(2000, 2001, (2001, 2002, 2003), "/home/mira")),
        ("mira:bin", User(2000, 2, (2,), "/home/mira")),
        ("2000:2002", User(2000, 2002, (2002,), "/home/mira")),
        ("4321", User(4321, 0, (0,), "/")),
        ("4321:9", User(4321, 9, (9,), "/")),
        ("daemon:4444", User(1, 4444, (4444,), "/usr/sbin")),
        (":disk", User(0, 2003, (2003,), "/root")),
        ("mira:", User(2000, 2001, (2001, 2002, 2003), "/home/mira")),
        ("short", User(77, 0, (0,), "/")),
        ("12", User(12, 0, (0,), "/")),
    ],
)
def test_user_values(text: str, user: User) -> None:
    """Names and numbers, with and without group, give the identity that the reference gives."""
    assert user == lookup_user(IMAGE, text)


def test_bare_image() -> None:
    """Without databases numbers still work and nobody is root at `/`."""
    bare = Databases(None, None)

    assert User(0, 0, (0,), "/") == lookup_user(bare, "")
    assert User(7, 8, (8,), "/") == lookup_user(bare, "7:8")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nobody", "unable to find user nobody: no matching entries in passwd file"),
        ("mira:wheel", "unable to find group wheel: no matching entries in group file"),
        ("-1", "uids and gids must be in range 0-2147483647: user -1"),
        ("1:4294967295", "uids and gids must be in range 0-2147483647: group 4294967295"),
    ],
)
def test_unknown(text: str, message: str) -> None:
    """Names that the image does not have and IDs that cannot be are refused with a way out."""
    with pytest.raises(UserLookupError) as caught:
        lookup_user(IMAGE, text)

    assert message == caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(("text", "gid"), [("disk", 2003), ("31337", 31337)])
def test_group(text: str, gid: int) -> None:
    """A group alone, as `--chown=:group` needs it."""
    assert gid == lookup_group(IMAGE, text)
