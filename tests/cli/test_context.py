"""What commands are told about the process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builder.cli.context import Settings
from builder.errors import UsageError

NAMES = (
    "PYBUILD_ROOT",
    "XDG_DATA_HOME",
    "DOCKER_CONFIG",
    "REGISTRY_AUTH_FILE",
    "CONTAINERS_REGISTRIES_CONF",
    "NO_COLOR",
    "FORCE_COLOR",
    "BUILDKIT_PROGRESS",
    "BUILDKIT_COLORS",
    "BUILDKIT_TTY_LOG_LINES",
    "SOURCE_DATE_EPOCH",
)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is set but HOME, and the working directory is `tmp_path`."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.chdir(tmp_path)


def as_user(monkeypatch: pytest.MonkeyPatch, uid: int) -> None:
    """Let the process believe it has this user ID."""
    monkeypatch.setattr(os, "geteuid", lambda: uid)


def test_the_store_of_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's store is the machine's."""
    as_user(monkeypatch, 0)

    assert Path("/var/lib/pybuild") == Settings.from_process().root


def test_the_store_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others have theirs below the XDG data directory; a relative one is ignored, as the specification says."""
    as_user(monkeypatch, 1000)
    assert Path("/home/somebody/.local/share/pybuild") == Settings.from_process().root

    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert Path("/data/pybuild") == Settings.from_process().root

    monkeypatch.setenv("XDG_DATA_HOME", "data")
    assert Path("/home/somebody/.local/share/pybuild") == Settings.from_process().root


def test_the_store_that_was_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """$PYBUILD_ROOT chooses the store, --root wins over it, both are relative to the working directory."""
    monkeypatch.setenv("PYBUILD_ROOT", "here")
    assert tmp_path / "here" == Settings.from_process().root
    assert tmp_path / "there" == Settings.from_process(root="there").root

    with pytest.raises(UsageError, match="--root names nothing"):
        Settings.from_process(root="")


def test_credentials_and_registries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Docker's directory has a default, the others are only there when they are named."""
    settings = Settings.from_process()
    assert (Path("/home/somebody/.docker"), None, None) == (
        settings.docker_config,
        settings.auth_file,
        settings.registries_conf,
    )

    monkeypatch.setenv("DOCKER_CONFIG", "docker")
    monkeypatch.setenv("REGISTRY_AUTH_FILE", "/auth.json")
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", "registries.conf")
    settings = Settings.from_process()
    assert (tmp_path / "docker", Path("/auth.json"), tmp_path / "registries.conf") == (
        settings.docker_config,
        settings.auth_file,
        settings.registries_conf,
    )


@pytest.mark.parametrize(
    ("no_color", "force_color", "color"),
    [
        (None, None, None),
        ("", "", None),
        ("1", None, False),
        (None, "1", True),
        ("", "1", True),
        ("1", "1", False),
    ],
)
def test_colours(
    monkeypatch: pytest.MonkeyPatch, no_color: str | None, force_color: str | None, color: bool | None
) -> None:
    """NO_COLOR and FORCE_COLOR count when they are not empty, and NO_COLOR wins."""
    for name, value in (("NO_COLOR", no_color), ("FORCE_COLOR", force_color)):
        if value is not None:
            monkeypatch.setenv(name, value)

    assert color == Settings.from_process().color


def test_buildkit(monkeypatch: pytest.MonkeyPatch) -> None:
    """BuildKit's variables mean what they mean there."""
    settings = Settings.from_process()
    assert ("", "", 6) == (settings.progress, settings.colors, settings.log_lines)

    monkeypatch.setenv("BUILDKIT_PROGRESS", "plain")
    monkeypatch.setenv("BUILDKIT_COLORS", "run=green")
    monkeypatch.setenv("BUILDKIT_TTY_LOG_LINES", "12")
    settings = Settings.from_process()
    assert ("plain", "run=green", 12) == (settings.progress, settings.colors, settings.log_lines)


@pytest.mark.parametrize("value", ["now", "-1", "1.5", "\N{ARABIC-INDIC DIGIT ONE}"])
def test_numbers_that_are_none(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """A value that cannot be honoured is refused by name, not ignored."""
    monkeypatch.setenv("BUILDKIT_TTY_LOG_LINES", value)
    with pytest.raises(UsageError, match="BUILDKIT_TTY_LOG_LINES") as caught:
        Settings.from_process()
    assert 2 == caught.value.exit_code

    # Builds know more words than numbers for this one; whoever needs a number says so.
    monkeypatch.delenv("BUILDKIT_TTY_LOG_LINES")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", value)
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH"):
        assert Settings.from_process().source_date_epoch


def test_source_date_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole seconds; not set is not zero."""
    assert Settings.from_process().source_date_epoch is None

    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    assert 0 == Settings.from_process().source_date_epoch


def test_a_directory_that_is_gone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Standing in a removed directory is said in words."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    with pytest.raises(UsageError, match="does not exist any more"):
        Settings.from_process()
