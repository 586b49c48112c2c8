"""`pybuild fmt`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from builder.cli.app import app
from grammar import ParseError

UNTIDY = b"from  a\nENV A=1  \\\n B=2\nRUN   x\n"
TIDY = b"FROM a\nENV A=1 \\\n    B=2\nRUN x\n"


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def fmt(*arguments: str, stdin: bytes = b"") -> Result:
    """Run the command; its errors are raised."""
    words = ["fmt", *arguments]
    result = CliRunner().invoke(app, words, input=stdin, catch_exceptions=False, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result


def status(result: Result) -> Any:
    """The exit status: click returns it where it does not exit itself."""
    return result.return_value or 0


def test_a_file_in_place(tmp_path: Path) -> None:
    """The file is replaced, its mode kept, a link to it still a link, and no other file is left."""
    path = tmp_path / "Dockerfile"
    path.write_bytes(UNTIDY)
    path.chmod(0o640)
    os.symlink("Dockerfile", tmp_path / "link")

    result = fmt("link")

    assert path.read_bytes() == TIDY
    assert path.stat().st_mode & 0o7777 == 0o640
    assert (tmp_path / "link").is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["Dockerfile", "link"]
    assert result.stderr == "formatted link\n"


def test_a_tidy_file_is_not_written(tmp_path: Path) -> None:
    """Without a name the Dockerfile here is meant; nothing to do is nothing done and nothing said."""
    path = tmp_path / "Dockerfile"
    path.write_bytes(TIDY)
    inode = path.stat().st_ino

    assert fmt().output == ""
    assert path.stat().st_ino == inode


def test_standard_input() -> None:
    """A filter: what comes in goes out tidied."""
    assert fmt("-", stdin=UNTIDY).stdout_bytes == TIDY
    assert fmt("-", stdin=TIDY).stdout_bytes == TIDY


def test_check(tmp_path: Path) -> None:
    """Tells the files that would change, by status and by name, and changes none."""
    (tmp_path / "one").write_bytes(UNTIDY)
    (tmp_path / "two").write_bytes(TIDY)

    result = fmt("--check", "one", "two")

    assert (status(result), result.stderr) == (1, "would format one\n")
    assert (tmp_path / "one").read_bytes() == UNTIDY
    assert status(fmt("--check", "two")) == 0


def test_diff(tmp_path: Path) -> None:
    """A unified diff that patch(1) takes, and no change."""
    (tmp_path / "one").write_bytes(UNTIDY.rstrip(b"\n") + b" \xff")

    result = fmt("--diff", "one")

    assert result.stdout_bytes == (
        b"--- one\n+++ one\n@@ -1,4 +1,4 @@\n-from  a\n-ENV A=1  \\\n- B=2\n-RUN   x \xff\n"
        b"\\ No newline at end of file\n+FROM a\n+ENV A=1 \\\n+    B=2\n+RUN x \xff\n"
    )
    assert (tmp_path / "one").read_bytes() == UNTIDY.rstrip(b"\n") + b" \xff"
    assert (status(result), status(fmt("--diff", "--check", "one"))) == (0, 1)


def test_nothing_is_written_if_one_is_broken(tmp_path: Path) -> None:
    """An error in the last file comes before the first is changed."""
    (tmp_path / "one").write_bytes(UNTIDY)
    (tmp_path / "two").write_bytes(b"FROM a\nNOPE\n")

    with pytest.raises(ParseError, match="unknown instruction"):
        fmt("one", "two")
    assert (tmp_path / "one").read_bytes() == UNTIDY
