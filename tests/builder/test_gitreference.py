"""What is a git repository and what of it is meant: the reference's forms, one by one."""

from __future__ import annotations

import pytest

from builder.gitreference import GitReference, GitReferenceError, parse_git_reference, shown_remote

FULL = "1" * 40


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("https://h/a.git", {"remote": "https://h/a.git"}),
        ("http://h:8080/x/a.git", {"remote": "http://h:8080/x/a.git"}),
        ("https://h/a.git#v1", {"remote": "https://h/a.git", "ref": "v1"}),
        ("https://h/a.git#v1:dir/x", {"remote": "https://h/a.git", "ref": "v1", "subdir": "dir/x"}),
        ("https://h/a.git#:dir", {"remote": "https://h/a.git", "subdir": "dir"}),
        ("git://h/a", {"remote": "git://h/a"}),
        ("git://h/a#main", {"remote": "git://h/a", "ref": "main"}),
        ("ssh://git@h:22/a", {"remote": "ssh://git@h:22/a"}),
        ("git@h:x/a.git#v1:d", {"remote": "git@h:x/a.git", "ref": "v1", "subdir": "d"}),
        ("someone@h:a?branch=b", {"remote": "someone@h:a", "ref": "refs/heads/b"}),
        ("https://u:p@h/a.git", {"remote": "https://u:p@h/a.git"}),
        ("https://h/a.git?ref=v1&subdir=d", {"remote": "https://h/a.git", "ref": "v1", "subdir": "d"}),
        ("https://h/a.git?tag=v1", {"remote": "https://h/a.git", "ref": "refs/tags/v1"}),
        ("https://h/a.git?tag=refs/tags/v1", {"remote": "https://h/a.git", "ref": "refs/tags/v1"}),
        ("https://h/a.git?branch=b#refs/heads/b", {"remote": "https://h/a.git", "ref": "refs/heads/b"}),
        ("https://h/a.git?checksum=12", {"remote": "https://h/a.git", "ref": "12", "checksum": "12"}),
        ("https://h/a.git?commit=12#v1", {"remote": "https://h/a.git", "ref": "v1", "checksum": "12"}),
        ("https://h/a.git?keep-git-dir", {"remote": "https://h/a.git", "keep_git_dir": True}),
        ("https://h/a.git?keep-git-dir=0", {"remote": "https://h/a.git", "keep_git_dir": False}),
        ("https://h/a.git?submodules=false", {"remote": "https://h/a.git", "submodules": False}),
        ("https://h/a.git?mtime=commit", {"remote": "https://h/a.git", "mtime": "commit"}),
        (
            f"https://h/a.git?ref=main&checksum={FULL}&fetch-by-commit=true",
            {"remote": "https://h/a.git", "ref": "main", "checksum": FULL, "fetch_by_commit": True},
        ),
    ],
)
def test_repositories(text: str, wanted: dict[str, object]) -> None:
    """Every form of the reference builder, with fragment and query."""
    assert GitReference(**wanted) == parse_git_reference(text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    ["a", "./a.git", "../x@h:a", "github.com/x/y", "https://h/a", "https://h/a.git/", "http://h/a.git.zip", "ftp://h/a.git",
     "file:///a.git", "ext::sh -c true", "h:a.git", "@h:a", "https://h/x?y=a.git"],
)  # fmt: skip
def test_no_repositories(text: str) -> None:
    """Paths, web pages and protocols that git is never asked to speak."""
    assert parse_git_reference(text) is None


def test_what_the_caller_knows() -> None:
    """With --keep-git-dir any URL is a repository; only a context is taken for one without a scheme."""
    assert GitReference(remote="https://h/a") == parse_git_reference("https://h/a", known=True)
    assert GitReference(remote="https://github.com/x/y", ref="v1") == parse_git_reference(
        "github.com/x/y#v1", github=True
    )


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("nope=1", 'unexpected query "nope"'),
        ("ref=", 'query "ref" has no value'),
        ("ref=a&ref=b", 'query "ref" has multiple values'),
        ("ref=a#b", 'ref conflicts: "b" vs "a"'),
        ("tag=a#b", 'ref conflicts: "b" vs "refs/tags/a"'),
        ("subdir=a#b:c", 'subdir conflicts: "c" vs "a"'),
        ("tag=a&branch=b", "branch conflicts with tag"),
        ("submodules=maybe", 'invalid submodules value: "maybe"'),
        ("keep-git-dir=2", 'invalid keep-git-dir value: "2"'),
        ("mtime=now", 'invalid mtime value: "now"'),
        ("fetch-by-commit", "fetch-by-commit needs a whole commit as checksum or ref"),
    ],
)
def test_contradictions(query: str, message: str) -> None:
    """What a query gets wrong, in the reference's words."""
    with pytest.raises(GitReferenceError) as caught:
        parse_git_reference("https://h/a.git?" + query)
    assert message == str(caught.value)


def test_passwords_are_not_shown() -> None:
    """The name stays, the password goes; text that is no URL is left alone."""
    assert "https://u@h/a.git#x" == shown_remote("https://u:p@h/a.git#x")
    assert "git@h:a" == shown_remote("git@h:a")
