"""Values of `RUN --mount`."""

from __future__ import annotations

import pytest

from grammar import MountError, parse_mount


def test_defaults() -> None:
    """What is not given is None; bind is the default type and read-only, cache and tmpfs are not."""
    mount = parse_mount("target=/x")

    assert (mount.type, mount.target, mount.readonly, mount.source, mount.required) == ("bind", "/x", True, None, False)
    assert [parse_mount(f"type={kind},id=i").readonly for kind in ("cache", "tmpfs", "secret", "ssh")] == [
        False,
        False,
        True,
        True,
    ]


def test_all_options() -> None:
    """Aliases, case of keys, numbers, sizes and booleans."""
    cache = parse_mount("TYPE=Cache,id=a,dst=/c,sharing=Locked,from=base,src=/s,mode=0750,uid=1,gid=2,ro")

    assert (cache.type, cache.id, cache.target, cache.sharing, cache.from_) == ("cache", "a", "/c", "locked", "base")
    assert (cache.source, cache.mode, cache.uid, cache.gid, cache.readonly) == ("/s", 0o750, 1, 2, True)
    assert parse_mount("type=tmpfs,destination=/t,size=1.5g").size == 3 << 29
    assert parse_mount("target=/b,rw=false").readonly
    assert not parse_mount("target=/b,readwrite").readonly
    secret = parse_mount("required,type=secret,id=s,env=TOKEN")
    assert (secret.required, secret.env) == (True, "TOKEN")


def test_csv() -> None:
    """Quoted fields hold commas and doubled quotes."""
    assert (
        parse_mount(
            '"target=/a,""b"',
        ).target
        == '/a,"b'
    )


def test_variables() -> None:
    """Values with variables are unchecked until they are expanded, then they are not."""
    text = "type=cache,target=/$D,mode=$M"

    assert (parse_mount(text).mode, parse_mount(text).target) == (None, "/$D")
    expanded = parse_mount(text, expand=lambda value: value.replace("$D", "d").replace("$M", "0700"))
    assert (expanded.mode, expanded.target) == (0o700, "/d")
    with pytest.raises(MountError, match="invalid value x for mode"):
        parse_mount(text, expand=lambda value: value.replace("$M", "x"))
    assert parse_mount("type=$T,mode=1").type == "bind"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("type=cache,taget=/c", "unexpected key 'taget' in 'taget=/c' (did you mean target?)"),
        ("type=volume,target=/c", 'unsupported mount type "volume"'),
        ("type=cach,target=/c", 'unsupported mount type "cach" (did you mean cache?)'),
        ("type=cache,sharing=x", 'unsupported sharing value "x"'),
        ("target", "invalid field 'target' must be a key=value pair"),
        ("", "failed to parse csv mounts: EOF"),
        ("from=$X,target=/x", "'from' doesn't support variable expansion, define alias stage instead"),
        ("target=/x,ro=maybe", "invalid value for ro: maybe"),
        ("target=/x,mode=0700", 'mode not allowed for "bind" type mounts'),
        ("type=cache,target=/x,mode=9", "invalid value 9 for mode"),
        ("type=cache,target=/x,uid=-1", "invalid value -1 for uid"),
        ("type=tmpfs,target=/x,size=big", "invalid value for size: big"),
        ("type=cache,size=1", "unexpected key 'size' for mount type 'cache'"),
        ("type=cache,required", "unexpected key 'required' for mount type 'cache'"),
        ("type=secret,env=X", "invalid secret mount. one of source, target required"),
        ("type=secret,id=a,source=b", "both source and id can't be set"),
        ("type=secret,id=a,from=b", "secret mount should not have a from"),
        ("type=secret,id=a,sharing=shared", "secret mount should not define sharing"),
        ("target=/x,sharing=shared", "invalid cache sharing set for bind mount"),
        ("target=/./,type=tmpfs", 'invalid mount target "/"'),
        ('target=/a"b', 'failed to parse csv mounts: bare " in non-quoted field'),
        ('"target=/a', 'failed to parse csv mounts: extraneous or missing " in quoted-field'),
    ],
)
def test_refusals(text: str, message: str) -> None:
    """Every error has the reference's words, and a hint."""
    with pytest.raises(MountError) as caught:
        parse_mount(text)

    assert caught.value.message == message
    assert caught.value.hint or "did you mean" in message
