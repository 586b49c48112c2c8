"""How Dockerfiles and command lines name git repositories: URLs with a fragment or a query, and `user@host:path`.

Text in, values out; nothing is asked of a server. The forms are BuildKit's: dfgitutil for what a reference says,
gitutil for what is one.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qs, unquote, urlsplit

from grammar.record import Record

COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
"""A commit written in full: SHA-1 or SHA-256."""

_SCHEME = re.compile(r"([a-zA-Z0-9]+)://")
_SCP = re.compile(r"(?P<place>[a-zA-Z0-9_-]+@[a-zA-Z0-9.-]+:[^?#]*)(?:\?(?P<query>[^#]*))?(?:#(?P<fragment>.*))?")
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})
_KEYS = ("ref", "tag", "branch", "subdir", "checksum", "commit", "keep-git-dir", "submodules", "mtime",
         "fetch-by-commit")  # fmt: skip


class GitReferenceError(ValueError):
    """A reference to a git repository that contradicts itself or says what means nothing."""


class GitReference(Record):
    """A repository and what of it is meant.

    `ref` is a branch, a tag or a commit, empty for the default branch; `subdir` a directory, empty for the root;
    `checksum` the beginning of the commit that it must be, empty for any. `keep_git_dir` and `submodules` are None
    where nothing is said. `mtime` is "checkout" or "commit". With `fetch_by_commit` the commit is fetched that
    `checksum` or `ref` names, wherever the ref points.
    """

    remote: str
    ref: str = ""
    subdir: str = ""
    checksum: str = ""
    keep_git_dir: bool | None = None
    submodules: bool | None = None
    mtime: str = "checkout"
    fetch_by_commit: bool = False


def parse_git_reference(text: str, *, known: bool = False, github: bool = False) -> GitReference | None:
    """Return what `text` names, None if it is no git repository; GitReferenceError.

    An http(s) URL is one if its path ends in `.git`, or if it is `known` to be one. `github` takes `github.com/…`
    without a scheme for one too, as the context argument of a build does: anywhere else it is a path.
    """
    if text.startswith(("./", "../")):
        return None
    if text.startswith("github.com/"):
        if not github:
            return None
        text, known = "https://" + text, True
    scheme = _SCHEME.match(text)
    if scheme is None:
        scp = _SCP.fullmatch(text)
        return None if scp is None else _reference(scp["place"], scp["query"] or "", scp["fragment"] or "")
    name = scheme[1].lower()
    if name not in ("http", "https", "ssh", "git"):
        return None
    try:
        parts = urlsplit(text)
    except ValueError:
        return None
    if name in ("http", "https") and not (known or unquote(parts.path).endswith(".git")):
        return None
    return _reference(parts._replace(query="", fragment="").geturl(), parts.query, unquote(parts.fragment))


def shown_remote(remote: str) -> str:
    """Return a repository's URL without the password that may be in it."""
    if _SCHEME.match(remote) is None:
        return remote
    parts = urlsplit(remote)
    user, at, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user.partition(':')[0]}{at}{host}").geturl()


def _reference(remote: str, query: str, fragment: str) -> GitReference:
    ref, _, subdir = fragment.partition(":")
    given = _query(query)
    ref = _agreed("ref", ref, given.get("ref", ""))
    subdir = _agreed("subdir", subdir, given.get("subdir", ""))
    checksum = _agreed("checksum", given.get("checksum", ""), given.get("commit", ""))
    if "tag" in given and "branch" in given:
        raise GitReferenceError("branch conflicts with tag")
    for key, prefix in (("tag", "refs/tags/"), ("branch", "refs/heads/")):
        if key in given:
            ref = _agreed("ref", ref, prefix + given[key].removeprefix(prefix))
    mtime = given.get("mtime", "checkout")
    if mtime not in ("checkout", "commit"):
        raise GitReferenceError(f'invalid mtime value: "{mtime}"')
    by_commit = _switch(given, "fetch-by-commit") or False
    if by_commit and not COMMIT.fullmatch(checksum or ref):
        raise GitReferenceError("fetch-by-commit needs a whole commit as checksum or ref")
    return GitReference(
        remote=remote,
        ref=ref or checksum,
        subdir=subdir,
        checksum=checksum,
        keep_git_dir=_switch(given, "keep-git-dir"),
        submodules=_switch(given, "submodules"),
        mtime=mtime,
        fetch_by_commit=by_commit,
    )


def _query(query: str) -> dict[str, str]:
    """Return the options of a query, each given once and known."""
    given: dict[str, str] = {}
    try:
        parsed = parse_qs(query, keep_blank_values=True)
    except ValueError as error:
        raise GitReferenceError(f"malformed query: {error}") from error
    for key, values in parsed.items():
        if len(values) > 1:
            raise GitReferenceError(f'query "{key}" has multiple values')
        if key not in _KEYS:
            raise GitReferenceError(f'unexpected query "{key}"')
        if not values[0] and key not in ("keep-git-dir", "submodules", "fetch-by-commit"):
            raise GitReferenceError(f'query "{key}" has no value')
        given[key] = values[0]
    return given


def _agreed(what: str, one: str, other: str) -> str:
    if one and other and one != other:
        raise GitReferenceError(f'{what} conflicts: "{one}" vs "{other}"')
    return one or other


def _switch(given: dict[str, str], key: str) -> bool | None:
    """Return a yes or no, None if nothing is said; the bare key is a yes."""
    value = given.get(key)
    if value is None or value in _FALSE:
        return None if value is None else False
    if value and value not in _TRUE:
        raise GitReferenceError(f'invalid {key} value: "{value}"')
    return True
