"""Ignore files: the reference's patterns, the order of rules, and errors with a place."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.dockerignore import IgnoreError, IgnoreFile, PatternMatcher, Rule, find_ignore_file


def ignored(rules: str, path: str) -> bool:
    """Ask the slow, exact way."""
    return IgnoreFile(rules.encode()).explain(path.encode()) is not None


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("**", "file", True),
        ("**", "dir/file", True),
        ("**/", "dir/file", True),
        ("**/**", "dir/file", True),
        ("dir/**", "dir/file", True),
        ("dir/**", "dir", False),
        ("dir/**", "dir/dir2/file", True),
        ("**/dir", "dir", True),
        ("**/dir", "dir/file", True),
        ("**/dir2/*", "dir/dir2/file", True),
        ("**/dir2/**", "dir/dir2/dir2/file", True),
        ("**file", "dir/file", True),
        ("**file", "prefile", True),
        ("**/file", "dir/dir/file", True),
        ("**/file", "prefile", False),
        ("a**/*.txt", "abc/dir/file.txt", True),
        ("a**/*.txt", "afile.txt", True),
        ("a/*.txt", "a/file.txt", True),
        ("a/*.txt", "a/b/file.txt", False),
        ("a[b-d]e", "ace", True),
        ("a[b-d]e", "aae", False),
        ("a[^b-d]e", "aze", True),
        (".*", ".foo", True),
        (".*", "foo", False),
        ("abc.def", "abcdef", False),
        ("abc.def", "abc.def", True),
        ("abc.def", "abcZdef", False),
        ("abc?def", "abcZdef", True),
        ("abc?def", "abc/def", False),
        ("abc?def", "abc\u00fcdef", True),
        ("a\\*b", "a*b", True),
        ("a\\*b", "axb", False),
        ("(a)+{b}|$", "(a)+{b}|$", True),
        ("a^b", "a^b", True),
        ("dir", "dir/sub/file", True),
        ("dir/", "dir/x", True),
        ("/dir", "dir", True),
        ("dir/../other", "other", True),
        ("Dir", "dir", False),
        ("*", ".hidden", True),
        ("*/*", "a", False),
        ("*/*", "a/b", True),
    ],
)
def test_patterns(pattern: str, path: str, expected: bool) -> None:
    """A pattern matches what moby/patternmatcher says it matches, a path below a match included."""
    assert expected is ignored(pattern, path)


@pytest.mark.parametrize(
    ("rules", "path", "expected"),
    [
        ("*\n!a", "a", False),
        ("*\n!a", "a/b", False),
        ("*\n!a/b", "a/c", True),
        ("*\n!a/b", "a/b", False),
        ("!a\n*", "a", True),
        ("a\n!a/b\na/b/c", "a/b/c", True),
        ("a\n!a/b\na/b/c", "a/b/d", False),
        ("# a\na", "a", True),
        (" # a", "# a", True),
        ("\ufeffa", "a", True),
        ("! b\na", "a", True),
        ("a\n!  a", "a", False),
        (".\n\n", "a", False),
        ("a\r\nb\r\n", "a", True),
        # The exception is not looked at where it changes nothing, and so is not inherited by what is below.
        ("!bar\n**/x", "bar/x", True),
    ],
)
def test_order(rules: str, path: str, expected: bool) -> None:
    """The last rule that matches decides; comments, blanks and line ends are taken as the reference takes them."""
    assert expected is ignored(rules, path)


def test_explain_names_the_rule() -> None:
    """Messages can say which line hides a path."""
    ignore = IgnoreFile(b"# logs\n*.log\n  sub/\n")

    assert Rule(2, "*.log") == ignore.explain(b"a.log")
    assert Rule(3, "  sub/") == ignore.explain(b"sub/deep/file")
    assert ignore.explain(b"other") is None


@pytest.mark.parametrize(
    ("rules", "line", "column", "fragment"),
    [
        (b"ok\na[\n", 2, 2, "syntax error in pattern"),
        (b"[]a]", 1, 2, "syntax error in pattern"),
        (b"a\\", 1, 2, "syntax error in pattern"),
        (b"!\n", 1, 1, "illegal exclusion pattern"),
    ],
)
def test_malformed(rules: bytes, line: int, column: int, fragment: str) -> None:
    """A malformed pattern is an error with file, line, column and a hint."""
    with pytest.raises(IgnoreError) as caught:
        IgnoreFile(rules, name="x.dockerignore")

    assert caught.value.message.startswith(f"x.dockerignore:{line}:{column}: {fragment}")
    assert caught.value.hint


def test_fast_filter_misses_nothing() -> None:
    """Whatever any pattern matches by itself is found by the per-directory filter that the walk relies on."""
    texts = ["*.log", "**/*.pyc", "a/b", "a/*/c", "**/node", "deep/**", "x?y", "[a-c]z", "**file", "!keep", "q/**/r"]
    names = ["a", "b", "c", "node", "k.log", "m.pyc", "deep", "xxy", "bz", "myfile", "keep", "q", "r", "plain"]
    paths = [*names, *(f"{one}/{two}" for one in names for two in names)]
    paths += [f"{one}/{two}/{three}" for one in names[:6] for two in names for three in names]
    for left_out in range(len(texts)):
        matcher = PatternMatcher.of([one for index, one in enumerate(texts) if index != left_out], where="test")
        for path in paths:
            parent, _, name = path.rpartition("/")
            literals, by_name, by_path = matcher.filter(parent)
            found = name in literals or bool(by_name and by_name(name)) or bool(by_path and by_path(path))
            if any(pattern.matches(path) for pattern in matcher.patterns):
                assert found, (path, texts[left_out])


def test_ignore_file_beside_the_dockerfile_wins(tmp_path: Path) -> None:
    """NAME.dockerignore beside the Dockerfile, else .dockerignore in the context, else none."""
    dockerfile = tmp_path / "build" / "Dockerfile"
    dockerfile.parent.mkdir()

    assert find_ignore_file(tmp_path, dockerfile) is None
    common = tmp_path / ".dockerignore"
    common.touch()
    assert common == find_ignore_file(tmp_path, dockerfile)
    own = tmp_path / "build" / "Dockerfile.dockerignore"
    own.touch()
    assert own == find_ignore_file(tmp_path, dockerfile)
