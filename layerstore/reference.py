"""Image references: `docker.io/library/debian:12`, in short `debian:12` (grammar and defaults of docker/distribution).

Knows text only: nothing here asks a registry or the store.
"""

from __future__ import annotations

import re
from typing import NamedTuple, Self

from layerstore.digest import Digest
from layerstore.errors import StoreError

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"

_LEGACY_REGISTRY = "index.docker.io"
_OFFICIAL = "library/"
_MAX_PATH = 255

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_PATH_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_PATH = rf"{_PATH_PART}(?:/{_PATH_PART})*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"

# Compiled when first needed (`re` keeps them): a cached build parses a name or two, most commands none.
_REFERENCE = rf"(?P<registry>{_HOST})/(?P<repository>{_PATH})(?::(?P<tag>{_TAG}))?(?:@(?P<digest>{_DIGEST}))?"
_ID = r"[a-f0-9]{64}"


class InvalidReference(StoreError):
    """Text that is no image reference."""


class Reference(NamedTuple):
    """One image in one registry: by tag, by digest, or by both (then the digest decides).

    `registry` is a host with an optional port, `repository` a path in it. At least one of `tag` and `digest` is set.
    """

    registry: str
    repository: str
    tag: str | None
    digest: Digest | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Take `text` as a reference, with docker's defaults: docker.io, `library/`, `latest`.

        Raises InvalidReference with what is wrong in words.
        """
        if not text:
            raise InvalidReference("an image reference is empty", hint="name an image, for example debian:12")
        if re.fullmatch(_ID, text):
            raise InvalidReference(
                f"invalid image reference {text}: a repository cannot be called like an image ID",
                hint="use the image's name where a registry is meant",
            )
        registry, rest = _split_registry(text)
        match = re.fullmatch(_REFERENCE, f"{registry}/{rest}")
        if match is None:
            raise _explain(text, registry, rest)
        if len(match["repository"]) > _MAX_PATH:
            raise InvalidReference(
                f"invalid image reference {text}: the repository has more than {_MAX_PATH} characters"
            )
        digest = None if match["digest"] is None else _parse_digest(match["digest"], text)
        tag: str | None = match["tag"]
        if tag is None and digest is None:
            tag = DEFAULT_TAG
        return cls(match["registry"], match["repository"], tag, digest)

    @property
    def canonical(self) -> str:
        """The whole reference: `docker.io/library/debian:12`, with `@sha256:…` where a digest is given."""
        return self.name + self._suffix

    @property
    def familiar(self) -> str:
        """The reference as docker shows it: without `docker.io/` and `library/`; the tag is always there."""
        return self.familiar_name + self._suffix

    @property
    def name(self) -> str:
        """Registry and repository, without tag and digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def familiar_name(self) -> str:
        """Registry and repository as docker shows them, without tag and digest."""
        if self.registry != DEFAULT_REGISTRY:
            return self.name
        short = self.repository.removeprefix(_OFFICIAL)
        return self.repository if "/" in short else short

    @property
    def target(self) -> str:
        """What is asked of the registry under `manifests/`: the digest where one is given, else the tag."""
        return self.digest if self.digest is not None else self.tag or DEFAULT_TAG

    @property
    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def with_tag(self, tag: str) -> Self:
        """Return the same repository by `tag` alone; InvalidReference if `tag` is none."""
        if not re.fullmatch(_TAG, tag):
            raise InvalidReference(
                f"invalid tag {tag!r}", hint="a tag has letters, digits, _ . - and at most 128 of them"
            )
        return self._replace(tag=tag, digest=None)

    def with_digest(self, digest: Digest) -> Self:
        """Return the same repository by `digest` alone."""
        return self._replace(tag=None, digest=digest)

    def __str__(self) -> str:
        return self.familiar


def _split_registry(text: str) -> tuple[str, str]:
    """Return (registry, rest): the first part is a registry if it could not be part of a repository's path."""
    first, slash, rest = text.partition("/")
    if not slash:
        return DEFAULT_REGISTRY, _OFFICIAL + text
    if first == _LEGACY_REGISTRY:
        first = DEFAULT_REGISTRY
    elif first != "localhost" and not any(c in first for c in ".:") and first == first.lower():
        return DEFAULT_REGISTRY, text
    if first == DEFAULT_REGISTRY and "/" not in rest:
        rest = _OFFICIAL + rest
    return first, rest


def _parse_digest(digest: str, text: str) -> Digest:
    algorithm = digest.partition(":")[0]
    if algorithm != "sha256":
        raise InvalidReference(
            f"invalid image reference {text}: digest algorithm {algorithm} is not supported", hint="use a sha256 digest"
        )
    try:
        return Digest.parse(digest)
    except ValueError:
        raise InvalidReference(
            f"invalid image reference {text}: a sha256 digest has 64 lower-case hex digits"
        ) from None


def _explain(text: str, registry: str, rest: str) -> InvalidReference:
    """Say which part of `text` breaks the grammar."""
    rest, at, digest = rest.partition("@")
    repository, colon, tag = rest.partition(":")
    problem, hint = "it is not of the form [REGISTRY/]NAME[:TAG][@DIGEST]", ""
    if "://" in text:
        problem, hint = "it has a scheme", f"leave out {text.partition('://')[0]}://"
    elif repository != repository.lower():
        problem, hint = f"repository name ({repository}) must be lowercase", f"did you mean {_lower_name(text)}?"
    elif not re.fullmatch(_HOST, registry):
        problem = f"{registry!r} is no host name with an optional port"
    elif not re.fullmatch(_PATH, repository):
        shown = repository.removeprefix(_OFFICIAL)
        problem = f"{shown!r} is no repository name"
        hint = "names have lower-case letters and digits, separated by one of . _ __ - and parts by /"
    elif colon and not re.fullmatch(_TAG, tag):
        problem, hint = f"{tag!r} is no tag", "a tag has letters, digits, _ . - and at most 128 of them"
    elif at:
        problem, hint = f"{digest!r} is no digest", "a digest is sha256: and 64 hex digits"
    return InvalidReference(f"invalid image reference {text}: {problem}", hint=hint)


def _lower_name(text: str) -> str:
    """Return `text` with all but its tag and digest in lower case."""
    name = re.match(r".*?(?=(?::[^/]*)?(?:@.*)?\Z)", text, re.DOTALL)
    end = name.end() if name else len(text)
    return text[:end].lower() + text[end:]
