"""Credentials in docker's config.json and in helpers."""

from __future__ import annotations

import base64
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from layerstore.registry.auth import AuthFiles, Credentials
from layerstore.registry.errors import AuthError

ANN = Credentials(username="ann", password="p:w")
AUTH = base64.b64encode(b"ann:p:w").decode()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "docker" / "config.json"


def write(path: Path, data: object) -> AuthFiles:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))
    return AuthFiles([path])


@pytest.mark.parametrize(
    ("key", "registry"),
    [
        ("example.com", "example.com"),
        ("https://example.com", "example.com"),
        ("https://example.com/v1/", "example.com"),
        ("http://example.com:5000/v2/", "example.com:5000"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("docker.io", "docker.io"),
        ("index.docker.io", "docker.io"),
    ],
)
def test_keys(config: Path, key: str, registry: str) -> None:
    """Entries are found under every spelling that docker wrote over the years."""
    files = write(config, {"auths": {"other.example": {"auth": "eDp5"}, key: {"auth": AUTH}}})

    assert ANN == files.find(registry)


def test_namespaces_are_more_specific(config: Path) -> None:
    """An entry for a namespace is preferred to the registry's, as in containers-auth.json(5)."""
    mine = base64.b64encode(b"me:mine").decode()
    files = write(config, {"auths": {"quay.io": {"auth": AUTH}, "quay.io/me": {"auth": mine}}})

    assert Credentials(username="me", password="mine") == files.find("quay.io", "me/app")
    assert ANN == files.find("quay.io", "mean/app")
    assert ANN == files.find("quay.io")


def test_other_forms(config: Path) -> None:
    """Identity tokens, registry tokens, plain names, empty entries, unknown registries."""
    files = write(
        config,
        {
            "auths": {
                "identity": {"auth": AUTH, "identitytoken": "id"},
                "token": {"registrytoken": "t"},
                "plain": {"username": "ann", "password": "p:w"},
                "empty": {},
            }
        },
    )

    assert Credentials(username="ann", password="p:w", identity_token="id") == files.find("identity")
    assert Credentials(registry_token="t") == files.find("token")
    assert ANN == files.find("plain")
    assert files.find("empty") is None
    assert files.find("unknown") is None
    assert AuthFiles([config.parent / "none"]).find("x") is None


def test_passwords_are_not_printed() -> None:
    """No trace of a secret gets into a log by way of repr."""
    assert "p:w" not in repr(Credentials(username="ann", password="p:w", identity_token="p:w", registry_token="p:w"))


def test_login_and_logout(config: Path) -> None:
    """What is stored is found, replaces old spellings, is private, leaves the rest alone, and can be removed."""
    files = write(
        config, {"auths": {"https://example.com/v1/": {"auth": "eDp5"}, "b": {"auth": AUTH}}, "psFormat": "x"}
    )

    where = files.store("example.com", ANN)
    stored = json.loads(config.read_text())

    assert str(config) == where
    assert {"auths": {"b": {"auth": AUTH}, "example.com": {"auth": AUTH}}, "psFormat": "x"} == stored
    assert 0o600 == stat.S_IMODE(config.stat().st_mode)
    assert ANN == AuthFiles([config]).find("example.com")
    assert files.erase("example.com")
    assert not files.erase("example.com")
    assert {"auths": {"b": {"auth": AUTH}}, "psFormat": "x"} == json.loads(config.read_text())
    assert ["config.json"] == os.listdir(config.parent)


def test_the_first_file_is_made(config: Path) -> None:
    """A login without any file makes one in a private directory; docker finds it under its own key."""
    AuthFiles([config]).store("docker.io", ANN)

    assert {"auths": {"https://index.docker.io/v1/": {"auth": AUTH}}} == json.loads(config.read_text())
    assert 0o700 == stat.S_IMODE(config.parent.stat().st_mode)


def test_a_link_stays_a_link(config: Path, tmp_path: Path) -> None:
    """A config.json that lies elsewhere is replaced there."""
    config.parent.mkdir()
    config.symlink_to(tmp_path / "real.json")

    AuthFiles([config]).store("example.com", ANN)

    assert config.is_symlink()
    assert "example.com" in (tmp_path / "real.json").read_text()


HELPER = """#!/bin/sh
dir=$HELPER_DIR
read -r line
case $1 in
get) [ ! -e "$dir/secret" ] || exec cat "$dir/secret"
    echo "credentials not found in native keychain"; exit 1 ;;
store) echo "$line" > "$dir/secret" ;;
erase) rm "$dir/secret" ;;
esac
"""


@pytest.fixture
def helper(tmp_path: Path) -> dict[str, str]:
    """A credential helper called `test`, and the environment in which it is found."""
    program = tmp_path / "bin" / "docker-credential-test"
    program.parent.mkdir()
    program.write_text(HELPER)
    program.chmod(0o755)
    return {"PATH": f"{program.parent}:{os.environ['PATH']}", "HELPER_DIR": str(tmp_path)}


@pytest.mark.parametrize("form", [{"credsStore": "test"}, {"credHelpers": {"example.com": "test"}}])
def test_helpers(config: Path, helper: dict[str, str], form: dict[str, Any]) -> None:
    """A helper is asked, told and made to forget; the file itself never sees the password."""
    write(config, form)
    files = AuthFiles([config], environ=helper)

    assert files.find("example.com") is None
    assert "the credential helper test" == files.store("example.com", ANN)
    assert ANN == files.find("example.com")
    assert form == json.loads(config.read_text())
    assert files.erase("example.com")
    assert files.find("example.com") is None
    assert not files.erase("example.com")


def test_a_helper_with_an_identity_token(config: Path, helper: dict[str, str], tmp_path: Path) -> None:
    """The user name `<token>` says that the secret is an identity token."""
    write(config, {"credsStore": "test"})
    (tmp_path / "secret").write_text(json.dumps({"Username": "<token>", "Secret": "id"}))

    assert Credentials(identity_token="id") == AuthFiles([config], environ=helper).find("example.com")


def test_the_file_is_asked_after_the_helper(config: Path, helper: dict[str, str]) -> None:
    """What a helper does not know may be in the file."""
    write(config, {"credsStore": "test", "auths": {"example.com": {"auth": AUTH}}})

    assert ANN == AuthFiles([config], environ=helper).find("example.com")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "not a JSON object"),
        ('{"auths": []}', None),
        ('{"auths": [1]}', "auths is not an object"),
        ('{"auths": {"x": 1}}', "auths of x: not an object"),
        ('{"auths": {"x": {"auth": "***"}}}', "auth is not base64"),
        ('{"auths": {"x": {"auth": "eA=="}}}', "does not hold a name and a password"),
        ('{"credHelpers": [1]}', "credHelpers is not an object"),
        ('{"credsStore": "../evil"}', "is not the name of a credential helper"),
        ('{"credsStore": "no-such-helper"}', "cannot run the credential helper docker-credential-no-such-helper"),
    ],
)
def test_malformed_files(config: Path, data: str, message: str | None) -> None:
    """What is wrong is said with the file's path; nothing is taken for credentials."""
    config.parent.mkdir()
    config.write_text(data)
    files = AuthFiles([config], environ={"PATH": os.environ["PATH"]})

    if message is None:
        assert files.find("x") is None
        return
    with pytest.raises(AuthError) as caught:
        files.find("x")
    assert message in caught.value.message


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    """A directory in the way is told as an error with a hint."""
    (tmp_path / "file").write_text("")

    with pytest.raises(AuthError, match="cannot") as caught:
        AuthFiles([tmp_path / "file" / "config.json"]).store("x", ANN)

    assert caught.value.message
