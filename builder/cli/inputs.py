"""The inputs of `pybuild build` as users write them: context, Dockerfile, build arguments, secrets, named contexts."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from builder.cli.context import Settings, proxies_of
from builder.errors import SourceError, UsageError
from builder.filetree import clean
from builder.plan import FetchedContext, ImageContext, LocalDirectory, NamedContext, PlanOptions
from grammar.record import Record
from layerstore.platforms import Platform
from layerstore.reference import InvalidReference, Reference

if TYPE_CHECKING:
    from builder.events import Progress
    from builder.remotecontext import Fetched
    from layerstore import Store

MOST_SECRET = 500 << 10
MOST_DOCKERFILE = 64 << 20
_SUFFIXES = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


class Inputs(Record):
    """What is built: `dockerfile` is the text, `path` its place if it is a file, `context` what it may read."""

    context: Path | FetchedContext
    dockerfile: bytes
    name: str
    path: Path | None
    heeds_ignore_file: bool = True


Fetch = Callable[[str], "Fetched"]
"""Fetches a context of which `is_remote_context` is true."""


def is_remote_context(settings: Settings, context: str) -> bool:
    """Say whether a context is fetched; a directory is one whatever else its name may mean. UsageError."""
    if not (":" in context or context.startswith("github.com/")) or settings.path(context).is_dir():
        return False
    from builder.remotecontext import is_remote  # noqa: PLC0415 - most contexts are directories

    return is_remote(context)


def read_inputs(settings: Settings, context: str, file: str | None, *, unpack_to: Path, fetch: Fetch) -> Inputs:
    """Find context and Dockerfile. `-` as context is a tar or a Dockerfile on stdin, `-` as file a Dockerfile on stdin.

    A tar is unpacked below `unpack_to`, a directory that the caller removes; `fetch` fetches what is remote.
    SourceError, UsageError.
    """
    if is_remote_context(settings, context):
        return _fetched(fetch(context), file)
    if context == "-":
        if file == "-":
            raise UsageError(
                "context and Dockerfile cannot both be read from stdin", hint="name one of them by its path"
            )
        return _from_stdin(file, unpack_to)
    root = settings.path(context)
    if not root.is_dir():
        what = "is not a directory" if root.exists() else "does not exist"
        raise SourceError(f"the build context {context} {what}", hint="give a directory, as in `pybuild -t app .`")
    if file == "-":
        return Inputs(context=root, dockerfile=_stdin(), name="Dockerfile", path=None)
    return _with_dockerfile(root, file, settings.cwd)


def _with_dockerfile(root: Path, file: str | None, base: Path, *, unpacked: bool = False) -> Inputs:
    """Read the Dockerfile: `file` is relative to `base`; without it, the context's own, maybe an unpacked tar."""
    if file is not None:
        path = base / file
    else:
        path = root / "Dockerfile"
        if not path.exists() and (root / "dockerfile").exists():
            path = root / "dockerfile"
    try:
        data = path.read_bytes()
    except OSError as error:
        shown = file or path.name if unpacked else path
        raise SourceError(
            f"cannot read the Dockerfile {shown}: {error.strerror}",
            hint="name it with -f, or create one" if file is None else "look at the path given to -f",
        ) from error
    name = file or path.name
    return Inputs(context=root, dockerfile=data, name=name, path=path, heeds_ignore_file=not unpacked)


def _fetched(fetched: Fetched, file: str | None) -> Inputs:
    """Take the Dockerfile from a context that was fetched: `file` is relative to its root."""
    if file == "-":
        return Inputs(context=fetched.context, dockerfile=_stdin(), name="Dockerfile", path=None)
    if fetched.text is not None:
        if file is not None:
            message = f"{fetched.context.reference} is a Dockerfile, so it holds no file for -f"
            raise UsageError(message, hint="leave -f out, or give an archive or a repository")
        return Inputs(context=fetched.context, dockerfile=fetched.text, name="Dockerfile", path=None)
    names = [file] if file is not None else ["Dockerfile", "dockerfile"]
    for name in names:
        data = fetched.tree.read(clean(os.fsencode(name)), limit=MOST_DOCKERFILE)
        if data is not None:
            return Inputs(context=fetched.context, dockerfile=data, name=name, path=None)
    raise SourceError(
        f"cannot read the Dockerfile {names[0]} in {fetched.context.reference}: No such file or directory",
        hint="name it with -f, relative to the context",
    )


def _stdin() -> bytes:
    return sys.stdin.buffer.read()


def _from_stdin(file: str | None, unpack_to: Path) -> Inputs:
    """The context on stdin: a tar, compressed or not, or the text of a Dockerfile, whose context is empty."""
    from builder.unpack import Archive, is_archive  # noqa: PLC0415 - only for contexts on stdin
    from builder.writetree import write_tree  # noqa: PLC0415

    spool = unpack_to / "stdin"
    with open(spool, "wb") as out:
        while data := sys.stdin.buffer.read(1 << 20):
            out.write(data)
    root = unpack_to / "context"
    root.mkdir()
    if not is_archive(os.fsencode(spool)):
        if file is not None:
            hint = "use `-f - DIRECTORY` for a Dockerfile on stdin"
            raise UsageError("stdin is no tar, so it holds no file for -f", hint=hint)
        return Inputs(context=root, dockerfile=spool.read_bytes(), name="Dockerfile", path=None)
    archive = Archive(os.fsencode(spool), spool=str(unpack_to))
    try:
        # Files of a context belong to root in the image whoever owned them, so they need not be given away here.
        owned = (entry._replace(uid=os.getuid(), gid=os.getgid()) for entry in archive.members())
        write_tree(owned, root)
    finally:
        archive.close()
    return _with_dockerfile(root, file, root, unpacked=True)


def fetch_with(
    settings: Settings,
    store: Store,
    *,
    secrets: Mapping[str, bytes],
    ssh: Mapping[str, Path],
    build_args: Mapping[str, str],
    progress: Progress,
) -> Fetch:
    """Return what fetches contexts into `store` for a command with these options."""

    def fetch(context: str) -> Fetched:
        from builder.remotecontext import Access, fetch_context  # noqa: PLC0415 - most contexts are directories

        agent = settings.environ.get("SSH_AUTH_SOCK")
        # As with buildx: an agent need not be named for a context that needs one.
        agents = {"default": settings.path(agent), **ssh} if agent else ssh
        access = Access(secrets, agents, proxies_of(settings.environ), settings.environ)
        keep = build_args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR", "").lower() in ("1", "t", "true")
        return fetch_context(store, context, access=access, keep_git_dir=keep, progress=progress, clock=settings.clock)

    return fetch


def parse_pairs(texts: Iterable[str], what: str, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return `KEY=VALUE` options as a mapping.

    `KEY` alone takes its value from `environ`, and is left out if unset there.
    """
    pairs: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key:
            raise UsageError(f"{what}: {text!r} has no name", hint="write NAME=VALUE")
        if equals:
            pairs[key] = value
        elif environ is None:
            pairs[key] = ""
        elif key in environ:
            pairs[key] = environ[key]
    return pairs


def parse_platforms(settings: Settings, texts: Iterable[str]) -> tuple[Platform, ...]:
    """Return `--platform` options, each a list with commas: every platform once, in the order asked for.

    `local` is this machine. InvalidPlatform.
    """
    host = Platform.host(settings.machine)
    words = [word.strip() for text in texts for word in text.split(",")]
    found = (host if word == "local" else Platform.parse(word, host=host) for word in words)
    return tuple(dict.fromkeys(found))


def plan_options(settings: Settings, target: str | None, build_args: Iterable[str]) -> PlanOptions:
    """Return the options of a plan for this machine."""
    host = Platform.host(settings.machine)
    given = parse_pairs(build_args, "--build-arg", settings.environ)
    return PlanOptions(platform=host, build_platform=host, context=settings.cwd, target=target, build_args=given)


def parse_contexts(texts: Iterable[str], settings: Settings, store: Store) -> dict[str, NamedContext]:
    """Return `--build-context NAME=VALUE` options; OCI layouts are loaded into `store`."""
    contexts: dict[str, NamedContext] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise UsageError(
                f"--build-context: {text!r} is not NAME=VALUE", hint="as in --build-context shared=../shared"
            )
        name = _context_name(name)
        if value.startswith("docker-image://"):
            contexts[name] = ImageContext(reference=value.removeprefix("docker-image://"))
        elif value.startswith("oci-layout://"):
            contexts[name] = _layout(value.removeprefix("oci-layout://"), settings, store)
        elif (remote := _remote_context(value, settings)) is not None:
            contexts[name] = remote
        else:
            path = settings.path(value)
            if not path.is_dir():
                raise SourceError(f"the build context {name}={value} is not a directory", hint="give a directory")
            contexts[name] = LocalDirectory(path=path)
    return contexts


def _context_name(text: str) -> str:
    """The name of a context as FROM and --from look it up: the image's short one; `::OS/ARCH` behind it stays."""
    name, colons, platform = text.partition("::")
    try:
        short = Reference.parse(name).familiar.removesuffix(":latest")
    except InvalidReference as error:
        raise UsageError(f"invalid context name {name}: {error}", hint=error.hint) from error
    return short + colons + platform


def _remote_context(value: str, settings: Settings) -> NamedContext | None:
    if not is_remote_context(settings, value):
        return None
    from builder.remotecontext import named_context  # noqa: PLC0415 - only for contexts of this kind

    return named_context(value)


def _layout(text: str, settings: Settings, store: Store) -> NamedContext:
    from layerstore.archive import load  # noqa: PLC0415 - only for contexts of this kind

    path, _, tag = text.partition(":") if "@" not in text else text.partition("@")
    images = load(store, settings.path(path))
    chosen = [image for image in images if not tag or any(name.endswith(":" + tag) for name in image.names)]
    if len(chosen) != 1:
        found = ", ".join(name for image in images for name in image.names) or "images without a name"
        raise SourceError(
            f"the OCI layout {path} does not have exactly one image {tag or '(no tag given)'}", hint=f"it has {found}"
        )
    return ImageContext(reference=chosen[0].names[0] if chosen[0].names else str(chosen[0].id))


def parse_secrets(texts: Iterable[str], settings: Settings) -> dict[str, bytes]:
    """Return `--secret id=ID[,src=FILE|,env=NAME][,type=file|env]` options: ids and values."""
    secrets: dict[str, bytes] = {}
    for text in texts:
        fields = dict(field.partition("=")[::2] for field in _csv(text))
        unknown = sorted(set(fields) - {"id", "src", "source", "env", "type"})
        if unknown:
            raise UsageError(f"--secret: unknown key {unknown[0]!r}", hint="its keys are id, src, env and type")
        identity = fields.get("id") or ""
        source = fields.get("src", fields.get("source"))
        variable = fields.get("env")
        if fields.get("type") == "env" and variable is None:
            variable, source = source or identity, None
        if not identity:
            identity = os.path.basename(source) if source else variable or ""
        if not identity:
            raise UsageError(f"--secret: {text!r} has no id", hint="as in --secret id=token,src=token.txt")
        if source is None and variable is None and fields.get("type") != "file" and identity in settings.environ:
            variable = identity
        secrets[identity] = _secret(settings, identity, source, variable)
    return secrets


def _csv(text: str) -> list[str]:
    import csv  # noqa: PLC0415 - most builds have no secrets

    return next(csv.reader([text]))


def _secret(settings: Settings, identity: str, source: str | None, variable: str | None) -> bytes:
    if variable is not None:
        # One that is not set is an empty secret, as with buildx: in a fork's CI there are none.
        value = settings.environ.get(variable, "").encode("utf-8", "surrogateescape")
    else:
        try:
            value = settings.path(source or identity).read_bytes()
        except OSError as error:
            raise SourceError(f"--secret {identity}: cannot read {source or identity}: {error.strerror}") from error
    if len(value) > MOST_SECRET:
        raise UsageError(f"--secret {identity} has {len(value)} bytes; the limit is {MOST_SECRET}")
    return value


def parse_ssh(texts: Iterable[str], settings: Settings) -> dict[str, Path]:
    """Return `--ssh ID[=SOCKET]` options: ids and the sockets of key agents."""
    agents: dict[str, Path] = {}
    for text in texts:
        identity, _, socket = text.partition("=")
        socket = socket or settings.environ.get("SSH_AUTH_SOCK", "")
        if not socket:
            raise UsageError(f"--ssh {text}: SSH_AUTH_SOCK is not set", hint="start an agent, or give --ssh ID=SOCKET")
        path = settings.path(socket)
        if not path.is_socket():
            raise UsageError(f"--ssh {text}: {socket} is not a socket", hint="give the socket of a running ssh-agent")
        agents[identity or "default"] = path
    return agents


def parse_size(text: str, what: str) -> int:
    """Return a size such as `64m` in bytes."""
    number, unit = text.strip().lower().removesuffix("ib"), 1
    if number.endswith("b") and len(number) > 1 and not number[-2].isdigit():
        number = number[:-1]
    if number and number[-1] in _SUFFIXES:
        number, unit = number[:-1], _SUFFIXES[number[-1]]
    try:
        size = int(float(number) * unit)
    except (ValueError, OverflowError):
        size = -1
    if size < 0:
        raise UsageError(f"{what}: {text!r} is not a size", hint="write bytes, or a number with k, m or g")
    return size
