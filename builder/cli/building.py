"""What `pybuild build` does with what its command line says (`builder/cli/buildwords.py`)."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from builder.build import BuildOptions, Built, build
from builder.cli.context import Settings, proxies_of
from builder.cli.inputs import (
    fetch_with,
    is_remote_context,
    parse_contexts,
    parse_pairs,
    parse_platforms,
    parse_secrets,
    parse_size,
    parse_ssh,
    read_inputs,
)
from builder.cli.state import state_directory
from builder.errors import ExportError, UsageError
from builder.plan import PlanOptions
from builder.progress import create
from layerstore.platforms import Platform
from layerstore.reference import Reference

if TYPE_CHECKING:
    from builder.cli.words import Call
    from builder.events import Progress
    from builder.export import Part
    from builder.outputs import Output
    from layerstore import Store
    from layerstore.oci import Descriptor
    from layerstore.registry.ahead import Ahead
    from layerstore.registry.client import Client

ENTITLEMENTS = ("device", "network.host", "security.insecure")
CDI_DIRECTORIES = ("/etc/cdi", "/var/run/cdi")
"""Where the Container Device Interface wants devices to be described."""


def status_of(call: Call) -> int:
    """Do what a call that was read without click asks for; report what goes wrong; return the exit status."""
    from builder.cli.errors import reported  # noqa: PLC0415

    def act() -> None:
        make(Settings.from_process(root=call.root, debug=call.debug), call.given)

    return reported(act, debug=call.debug)


def make(settings: Settings, given: dict[str, Any]) -> None:
    """Build an image, or answer what is asked instead, as `given` (see `builder/cli/buildwords.py`) says."""
    given["platforms"] = parse_platforms(settings, given["platforms"])
    outputs = _outputs(settings, given)
    mode = "quiet" if given["quiet"] else given["progress"] or settings.progress
    asked = None
    if given["check"] or given["call"] or given["form"]:
        from builder.cli.call import answer, parse_call  # noqa: PLC0415 - only where something is asked

        call = parse_call("check" if given["check"] else given["call"] or "build", given["form"])
        asked = None if call.method == "build" else partial(answer, settings, call, given)
    with (
        settings.open_store() as store,
        _workspace(settings, store, given["context"]) as workspace,
        contextlib.ExitStack() as held,
    ):
        progress = create(
            "quiet" if asked else mode,
            sys.stderr,
            terminal=settings.stderr_tty,
            color=settings.color,
            colors=settings.colors,
            log_lines=settings.log_lines,
            clock=settings.clock,
            size=settings.terminal_size,
        )
        try:
            options = _options(settings, given, store, outputs, progress, workspace)
            if asked:
                asked(store, options)
                return
            ahead = _push_ahead(settings, outputs, options, held)
            with contextlib.nullcontext() if ahead is None else store.layers.watched(ahead.follow):
                built = build(store, options, progress=progress, clock=settings.clock, client=lambda: _client(settings))
        finally:
            progress.close()
        written = None
        for output in outputs:
            written = _write(settings, store, built, output, options, ahead) or written
        quiet = mode == "quiet"
        several = len(built.images) > 1
        if written is None and (given["metadata_file"] or (several and (quiet or given["iidfile"]))):
            written = _manifest(store, built, options)
        _report(settings, given, built, options, written, quiet=quiet)


def _options(
    settings: Settings,
    given: dict[str, Any],
    store: Store,
    outputs: list[Output],
    progress: Progress,
    workspace: Path,
) -> BuildOptions:
    host = Platform.host(settings.machine)
    platforms = given["platforms"]
    build_args = parse_pairs(given["build_args"], "--build-arg", settings.environ)
    if "SOURCE_DATE_EPOCH" in settings.environ:  # it becomes an argument, as with buildx
        build_args.setdefault("SOURCE_DATE_EPOCH", settings.environ["SOURCE_DATE_EPOCH"])
    secrets, ssh = parse_secrets(given["secrets"], settings), parse_ssh(given["agents"], settings)
    fetch = fetch_with(settings, store, secrets=secrets, ssh=ssh, build_args=build_args, progress=progress)
    inputs = read_inputs(settings, given["context"], given["file"], unpack_to=workspace, fetch=fetch)
    names = [*given["tags"], *(name for output in outputs for name in output.names)]
    hosts = _hosts(given["add_hosts"])
    return BuildOptions(
        plan=PlanOptions(
            platform=platforms[0] if platforms else host,
            build_platform=host,
            context=inputs.context,
            target=given["target"],
            build_args=build_args,
            labels=parse_pairs(given["labels"], "--label"),
            contexts=parse_contexts(given["contexts"], settings, store),
            no_cache_all=given["no_cache"],
            no_cache=frozenset(name for text in given["no_cache_filter"] for name in text.lower().split(",")),
            extra_hosts=hosts,
            network=given["network"],
            shm_size=parse_size(given["shm_size"], "--shm-size") if given["shm_size"] else 0,
            ulimits=_ulimits(given["ulimits"]),
            allow=_allowed(given["allowed"]),
            cdi_directories=_cdi_directories(settings, given["cdi_directories"]),
        ),
        platforms=platforms,
        dockerfile=inputs.dockerfile,
        name=inputs.name,
        path=inputs.path,
        heeds_ignore_file=inputs.heeds_ignore_file,
        names=tuple(_tag(name) for name in names),
        state=state_directory(settings),
        keep=given["load"] or not outputs or any(output.type != "cacheonly" for output in outputs),
        rewrite_timestamps=_rewrites(outputs),
        compress=any(output.compression == "zstd" for output in outputs),
        pull=given["pull"],
        jobs=given["jobs"] or len(os.sched_getaffinity(0)) + 2,
        secrets=secrets,
        ssh=ssh,
        proxies=proxies_of(settings.environ),
        environ=settings.environ,
    )


def _rewrites(outputs: list[Output]) -> bool:
    """Whether times are clamped: the layers of one build are the same in all its outputs."""
    asked = {output.rewrite_timestamp for output in outputs if output.type in ("image", "registry", "oci", "docker")}
    if len(asked) == 2:
        raise UsageError("rewrite-timestamp=true counts for all outputs of a build", hint="give it to each --output")
    return True in asked


def _tag(text: str) -> Reference:
    reference = Reference.parse(text)
    if reference.digest is not None:
        raise UsageError(f"{text} has a digest, which follows from the content", hint="give a name and a tag only")
    return reference


def _hosts(texts: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    if not texts:
        return ()
    from runner.hosts import parse_add_host  # noqa: PLC0415 - only where hosts are added

    return tuple(parse_add_host(text) for text in texts)


def _cdi_directories(settings: Settings, texts: tuple[str, ...]) -> tuple[Path, ...]:
    """Where devices are described; what the user names has to be there."""
    for text in texts:
        if not settings.path(text).is_dir():
            raise UsageError(f"--cdi-spec-dir: {text} is not a directory", hint="give one with files of devices")
    return tuple(settings.path(text) for text in texts or CDI_DIRECTORIES)


def _allowed(texts: tuple[str, ...]) -> frozenset[str]:
    for text in texts:
        name, equals, _ = text.partition("=")
        if name not in ENTITLEMENTS or (equals and name != "device"):
            raise UsageError(f"--allow: {text!r} is no entitlement", hint=f"there are {', '.join(ENTITLEMENTS)}")
        if equals:
            from builder.devices import parse_grant  # noqa: PLC0415 - few commands need a device

            parse_grant(text)
    return frozenset(texts)


def _ulimits(texts: tuple[str, ...]) -> tuple[str, ...]:
    if texts:
        from builder.ulimits import parse_ulimit  # noqa: PLC0415 - only where limits are given

        for text in texts:
            parse_ulimit(text)
    return texts


def _outputs(settings: Settings, given: dict[str, Any]) -> list[Output]:
    if not given["outputs"] and not given["push"]:
        return []
    from builder.outputs import Output, parse_output  # noqa: PLC0415 - most builds only keep their image

    outputs = [parse_output(text, cwd=settings.cwd) for text in given["outputs"]]
    if given["push"]:
        outputs.append(Output(type="registry", push=True))
    if sum(output.dest is None and output.type in ("oci", "docker", "tar") for output in outputs) > 1:
        raise UsageError("only one output can go to standard output", hint="give the others a dest")
    if any(not output.tar and output.dest is None for output in outputs):
        raise UsageError("--output tar=false writes a directory", hint="give dest=DIRECTORY")
    if len(given["platforms"]) > 1 and any(output.type == "docker" for output in outputs):
        raise UsageError("--output type=docker holds one platform", hint="use type=oci, or one --platform")
    named = given["tags"] or any(output.names for output in outputs)
    if not named and any(output.push for output in outputs):
        raise UsageError("there is no name to push to", hint="name the image with -t REGISTRY/NAME:TAG")
    return outputs


@contextlib.contextmanager
def _workspace(settings: Settings, store: Store, context: str) -> Iterator[Path]:
    """A directory for a context that arrives on stdin; gone afterwards, litter for gc if this process is killed.

    A context that is fetched is kept from gc meanwhile.
    """
    if context != "-":
        with store.lease() if is_remote_context(settings, context) else contextlib.nullcontext():
            yield store.root
        return
    upper = store.layers.prepare()
    try:
        yield upper.path
    finally:
        store.layers.discard(upper)


def _push_ahead(
    settings: Settings, outputs: list[Output], options: BuildOptions, held: contextlib.ExitStack
) -> Ahead | None:
    """What sends layers while they are written, until `held` ends; None where what is written is not what is pushed."""
    pushes = [output for output in outputs if output.push]
    if not pushes or options.rewrite_timestamps or pushes[0].compression not in (None, "zstd"):
        return None
    from layerstore.registry.ahead import Ahead  # noqa: PLC0415 - only builds that push

    ahead = held.enter_context(Ahead(lambda: held.enter_context(_client(settings)), options.names[0]))
    ahead.prepare()
    return ahead


def _client(settings: Settings) -> Client:
    from builder.cli.registry import client  # noqa: PLC0415 - only builds that speak to a registry pay for it

    return client(settings)


def _write(
    settings: Settings, store: Store, built: Built, output: Output, options: BuildOptions, ahead: Ahead | None
) -> Descriptor | None:
    """Write one output; return what was sent or written as an image."""
    match output.type:
        case "cacheonly":
            return None
        case "image" | "registry":
            return _push(settings, store, built, output, options, ahead) if output.push else None
        case "oci" | "docker":
            return _archive(store, built, output, options)
        case "tar":
            from builder.export import write_tar  # noqa: PLC0415

            with _archive_file(output.dest) as out:
                write_tar(_parts(store, built, output), out, mtime_ns=built.epoch)
        case "local":
            from builder.export import write_directory  # noqa: PLC0415

            assert output.dest is not None
            write_directory(
                _parts(store, built, output), output.dest, uid=os.getuid(), gid=os.getgid(), mtime_ns=built.epoch,
                delete=output.delete,
            )  # fmt: skip
    return None


def _parts(store: Store, built: Built, output: Output) -> list[Part]:
    """The files of the result: each platform's in a directory of its own where there are several, or as asked."""
    from builder.export import Part  # noqa: PLC0415 - only builds with such an output

    split = len(built.images) > 1 if output.platform_split is None else output.platform_split
    return [
        Part(
            view=store.layers.view(image.layers),
            directory=str(platform).replace("/", "_").encode() if split else b"",
            label=str(platform),
        )
        for platform, image in built.images
    ]


def _push(
    settings: Settings, store: Store, built: Built, output: Output, options: BuildOptions, ahead: Ahead | None
) -> Descriptor | None:
    from builder.cli.pushing import push_image  # noqa: PLC0415

    sent = None
    for reference in options.names:
        sent = push_image(
            settings, store, built.result, reference, compression=output.compression, level=output.level,
            ahead=ahead if reference == options.names[0] else None,
        )  # fmt: skip
    return sent


def _archive(store: Store, built: Built, output: Output, options: BuildOptions) -> Descriptor:
    from layerstore.archive import save_image  # noqa: PLC0415

    names = [reference.canonical for reference in options.names]
    save = partial(
        save_image, store, built.result, names, format=output.type, tar=output.tar,
        compression=output.compression, level=output.level,
    )  # fmt: skip
    if output.tar:
        with _archive_file(output.dest) as out:
            return save(out)
    assert output.dest is not None, "BUG: _outputs has seen to it"
    return save(output.dest)


def _archive_file(dest: Path | None) -> contextlib.AbstractContextManager[BinaryIO]:
    """Open a file that appears whole or not at all, or standard output unless that is a terminal."""
    from builder.cli.save import whole_file  # noqa: PLC0415 - only builds with such an output

    if dest is None and os.isatty(1):
        raise UsageError("an archive is not written to a terminal", hint="give dest=FILE, or redirect standard output")
    return whole_file(dest)


def _metadata(built: Built, options: BuildOptions, written: Descriptor | None) -> dict[str, Any]:
    """What was built, in the words of buildx; `written` is the manifest or index, if there is one yet."""
    found: dict[str, Any] = {}
    alone = len(built.images) == 1
    if alone:
        found["containerimage.config.digest"] = str(built.result.id)
    if written is not None:
        if alone:
            written = written._replace(platform=built.images[0][0])
        found["containerimage.descriptor"] = written.to_dict()
        found["containerimage.digest"] = str(written.digest)
    if options.names:
        found["image.name"] = ",".join(reference.canonical for reference in options.names)
    return found


def _manifest(store: Store, built: Built, options: BuildOptions) -> Descriptor | None:
    """The manifest that the image has already, or the index it would have in a registry: nothing else tells of it."""
    from layerstore.images import Image  # noqa: PLC0415 - most builds are not asked for it
    from layerstore.manifests import describe, kept_manifest, written  # noqa: PLC0415

    if not isinstance(built.result, Image):
        return written(store, built.result) if options.keep else None
    kept = kept_manifest(store, built.result)
    return None if kept is None else describe(*kept)


def _report(
    settings: Settings,
    given: dict[str, Any],
    built: Built,
    options: BuildOptions,
    written: Descriptor | None,
    *,
    quiet: bool,
) -> None:
    """Tell what was built: an image by its ID, an index by its digest in a registry, as buildx does."""
    identity = str(built.result.id)
    if len(built.images) > 1 and written is not None:
        identity = str(written.digest)
    metadata = _metadata(built, options, written)
    if quiet:
        sys.stdout.write(f"{identity}\n")
    for name, text in (("iidfile", identity), ("metadata_file", json.dumps(metadata, indent=2) + "\n")):
        if given[name]:
            path = settings.path(given[name])
            try:
                path.write_text(text)
            except OSError as error:
                raise ExportError(f"cannot write {path}: {error.strerror}", hint="choose another file") from error
