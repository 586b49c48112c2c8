"""The instructions that do something, RUN, COPY, ADD and WORKDIR, as operations of the graph."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import grammar
from builder.filetree import clean
from builder.graph import Vertex
from builder.mounts import MountPlanner
from builder.ops import CopyOp, DeviceRequest, GitOp, MkdirOp, RemoteFile, RunOp
from builder.selection import CopySpec, PathSource, Source, TextSource, TreeSource
from builder.steptext import sole_script
from grammar import Span, Word
from layerstore.digest import Digest

if TYPE_CHECKING:
    from builder.devices import Grants
    from builder.errors import LocatedError
    from builder.gitreference import GitReference
    from builder.stage import Planning, StageState

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
PIPES = "/dev/pipes/"
"""Where scripts from heredocs appear in a step."""


class StepPlanner:
    """Plans steps of the stages of a plan."""

    def __init__(self, planner: Planning) -> None:
        self._planner = planner
        self._mounts = MountPlanner(planner)
        self._grants: Grants | None = None

    def run(self, stage: StageState, instruction: grammar.Run) -> None:
        """Plan a RUN."""
        args, scripts = self._run_command(stage, instruction)
        if not args:
            message = "failed to marshal LLB definition: arguments are required"
            raise self._planner.error("arguments", message, instruction.span, hint='write RUN ["program", "argument"]')
        mounts, sources = self._mounts.plan(stage, instruction)
        self._entitled(instruction)
        devices = self._devices(instruction) if instruction.devices else ()
        network = instruction.network or self._planner.options.network
        if instruction.network == "default":
            network = self._planner.options.network
        given = self._planner.options.build_args
        op = RunOp(
            args=args,
            env=tuple(f"{name}={value}" for name, value in stage.env.items()),
            cwd=_cleaned(stage.workdir),
            user=stage.config.config.get("User") or "",
            mounts=mounts,
            network=network,
            security=instruction.security or "sandbox",
            hostname=given.get("BUILDKIT_SANDBOX_HOSTNAME") or "buildkitsandbox",
            extra_hosts=self._planner.options.extra_hosts,
            shm_size=self._planner.options.shm_size,
            ulimits=self._planner.options.ulimits,
            scripts=scripts,
            platform=str(stage.config.platform),
            devices=devices,
            proxies=_proxies(given, stage.env),
        )
        self._planner.advance(stage, op, (stage.tip, *sources), instruction)
        stage.config.commit(f"RUN {_command_text(stage, args)} # buildkit", layer=True)

    def _entitled(self, instruction: grammar.Run) -> None:
        for granted, wanted in (
            ("security.insecure", instruction.security == "insecure"),
            ("network.host", instruction.network == "host"),
        ):
            if wanted and granted not in self._planner.options.allow:
                raise self._planner.error(
                    "entitlement",
                    f"failed to load LLB: {granted} is not allowed",
                    instruction.span,
                    hint=f"pass --allow {granted}",
                )

    def _devices(self, instruction: grammar.Run) -> tuple[DeviceRequest, ...]:
        from builder.devices import Grants  # noqa: PLC0415 - few commands need a device

        if self._grants is None:
            self._grants = Grants(self._planner.options.allow, self._planner.options.cdi_directories)
        return tuple(self._grants.request(word) for word in instruction.devices)

    def _check_mode(self, text: str, instruction: grammar.Copy | grammar.Add) -> None:
        from builder.chmod import MODE_FORMS, ModeError, parse_mode  # noqa: PLC0415 - few copies change modes

        try:
            parse_mode(text)
        except ModeError as error:
            raise self._planner.error("flags", str(error), instruction.span, hint=MODE_FORMS) from error

    def _run_command(
        self, stage: StageState, instruction: grammar.Run
    ) -> tuple[tuple[str, ...], tuple[tuple[str, bytes], ...]]:
        """Return the arguments to execute and the scripts they need; heredocs become text for the shell or a script."""
        command = instruction.command
        if isinstance(command, grammar.ExecForm):
            return command.args, ()
        text = command.text
        if not instruction.heredocs:
            return (*stage.shell, text), ()
        if (script := sole_script(instruction)) is not None:
            if script.content.startswith("#!"):
                return (*stage.shell, PIPES + script.name), ((script.name, _bytes(script.body)),)
            return (*stage.shell, script.body), ()
        bodies = "".join(f"\n{one.content}{one.name}" for one in instruction.heredocs)
        return (*stage.shell, text + bodies), ()

    def copy(self, stage: StageState, instruction: grammar.Copy | grammar.Add) -> None:
        """Plan a COPY or ADD."""
        # In the reference's order: of several faults the same one is told.
        chown = self._flag(stage, instruction.chown)
        chmod = self._flag(stage, instruction.chmod)
        if chmod:
            self._check_mode(chmod, instruction)
        sources, remotes, repositories = self._sources(stage, instruction)
        dest = self._planner.expand(instruction.destination, stage.env)
        is_copy = isinstance(instruction, grammar.Copy)
        from_ = instruction.from_ if isinstance(instruction, grammar.Copy) else None
        if isinstance(instruction, grammar.Add) and instruction.checksum is not None:
            self._check(stage, instruction, instruction.checksum, remotes, repositories)
        unpack = instruction.unpack if isinstance(instruction, grammar.Add) else False
        spec = CopySpec(
            sources=tuple(sources),
            dest=_bytes(dest),
            workdir=_bytes(stage.workdir),
            chown=chown,
            chmod=chmod,
            link=bool(instruction.link),
            parents=bool(instruction.parents) if isinstance(instruction, grammar.Copy) else False,
            exclude=tuple(word.text for word in instruction.excludes),
            unpack=unpack is not False,
            unpack_remote=unpack is True,
        )
        inputs = self._copy_inputs(stage, spec, from_, instruction.span)
        shown = {remote.word: remote.url for remote in remotes}
        for at, (text, op) in repositories.items():
            span = instruction.sources[at].span
            inputs = (*inputs, self._planner.git_vertex(op, text, span))
            spec = spec.replace(sources=tuple(
                one._replace(input=len(inputs) - 1) if isinstance(one, TreeSource) and one.word == at else one
                for one in spec.sources
            ))  # fmt: skip
            shown[at] = text
        self._planner.advance(stage, CopyOp(spec=spec, remotes=tuple(remotes)), inputs, instruction)
        stage.config.commit(_copy_text("COPY" if is_copy else "ADD", spec, shown, dest), layer=True)

    def _copy_inputs(self, stage: StageState, spec: CopySpec, from_: Word | None, span: Span) -> tuple[Vertex, ...]:
        """The parent first, then the tree that path sources are in; heredocs and downloads need none."""
        if from_ is not None:
            return stage.tip, self._planner.source_vertex(stage, from_.text, from_.span)
        if any(isinstance(source, PathSource) for source in spec.sources):
            return stage.tip, self._planner.source_vertex(stage, None, span)
        return (stage.tip,)

    def _flag(self, stage: StageState, word: Word | None) -> str:
        return "" if word is None else self._planner.expand(word, stage.env)

    def _sources(
        self, stage: StageState, instruction: grammar.Copy | grammar.Add
    ) -> tuple[list[Source], list[RemoteFile], dict[int, tuple[str, GitOp]]]:
        """Return the sources in the reference's order, paths and repositories, then heredocs.

        With them those that have to be downloaded, and by the places of their words the repositories as written and as
        operations.
        """
        sources: list[Source] = []
        remotes: list[RemoteFile] = []
        repositories: dict[int, tuple[str, GitOp]] = {}
        for at, word in enumerate(instruction.sources):
            text = self._planner.expand(word, stage.env)
            if (op := self._repository(instruction, word, text)) is not None:
                sources.append(TreeSource(0, at))
                repositories[at] = (text, op)
            elif self._is_url(instruction, word, text):
                try:
                    remotes.append(RemoteFile(url=text, name=basename(text), word=at))
                except ValueError as error:
                    message = f"{text} is no valid URL: {error}"
                    raise self._planner.error("add-remote", message, word.span, hint="correct the URL") from error
            else:
                sources.append(PathSource(_bytes(text), at))
        for at, heredoc in enumerate(instruction.heredocs, len(instruction.sources)):
            if "/" in (name := _cleaned(heredoc.name)[1:]) or not name:
                # The reference makes a file of this name in an empty root first.
                message = f"open /{name}: no such file or directory"
                raise self._planner.error("copy", message, heredoc.span, hint="give the heredoc a name without slashes")
            content = heredoc.body
            if heredoc.expand:
                try:
                    content = grammar.expand_heredoc(content, stage.env).text
                except grammar.ExpandError as error:
                    raise self._planner.error("expansion", f"heredoc {heredoc.name}: {error}", heredoc.span) from error
            sources.append(TextSource(_bytes(heredoc.name), _bytes(content), at))
        return sources, remotes, repositories

    def _check(
        self,
        stage: StageState,
        instruction: grammar.Add,
        word: Word,
        remotes: list[RemoteFile],
        repositories: dict[int, tuple[str, GitOp]],
    ) -> None:
        """Give the one remote source the digest, or the commit, that it must have."""
        checksum = self._planner.expand(word, stage.env)
        if len(instruction.sources) != 1:
            message = "checksum can't be specified for multiple sources"
            raise self._planner.error("checksum", message, word.span, hint="write an ADD for each source")
        for at, (text, op) in repositories.items():
            if op.checksum and checksum and op.checksum != checksum:
                message = f'checksum mismatch "{checksum}" != "{op.checksum}"'
                raise self._planner.error("checksum", message, word.span, hint="say it in one place")
            repositories[at] = (text, op.replace(checksum=op.checksum or checksum))
            return
        if not checksum:
            return
        if not remotes:
            message = "checksum requires HTTP(S) or Git sources"
            raise self._planner.error("checksum", message, word.span, hint="take --checksum out for local files")
        try:
            digest = Digest.parse(checksum)
        except ValueError as error:
            hint = "write --checksum=sha256: and the 64 hex digits that sha256sum prints"
            raise self._planner.error("checksum", _why_no_digest(checksum), word.span, hint=hint) from error
        remotes[0] = remotes[0].replace(checksum=str(digest))

    def _repository(self, instruction: grammar.Copy | grammar.Add, word: Word, text: str) -> GitOp | None:
        """Return the git repository that a source names, if it does."""
        if ":" not in text:
            return None
        from builder.gitreference import GitReferenceError, parse_git_reference  # noqa: PLC0415 - few have a colon

        flag = instruction.keep_git_dir if isinstance(instruction, grammar.Add) else None
        try:
            # Who says what is to become of `.git` says that there is a repository.
            reference = parse_git_reference(text, known=flag is not None)
            if reference is None:
                return None
            if isinstance(instruction, grammar.Copy):
                raise self._not_for_copy("a git ref", word)
            keep = reference.keep_git_dir
            if keep is not None and flag is not None and keep != flag:
                raise GitReferenceError("inconsistent keep-git-dir configuration")
        except GitReferenceError as error:
            message = f"{text}: {error}"
            raise self._planner.error("add-remote", message, word.span, hint="correct the URL") from error
        return git_op(reference, keep_git_dir=keep if keep is not None else bool(flag))

    def _is_url(self, instruction: grammar.Copy | grammar.Add, word: Word, text: str) -> bool:
        """Say whether a source is to be downloaded."""
        if not text.lower().startswith(("http://", "https://")):
            return False
        if isinstance(instruction, grammar.Copy):
            raise self._not_for_copy("a URL", word)
        return True

    def _not_for_copy(self, what: str, word: Word) -> LocatedError:
        message = f"source can't be {what} for COPY"
        return self._planner.error("copy-remote", message, word.span, hint="use ADD for remote sources")

    def workdir(self, stage: StageState, instruction: grammar.Workdir) -> None:
        """Plan a WORKDIR."""
        text = self._planner.expand(instruction.path, stage.env)
        path = text
        if not text.startswith("/"):
            path = _cleaned(posixpath.join(stage.workdir, text))
        stage.config.config["WorkingDir"] = path
        makes = path != "/"
        if makes:
            op = MkdirOp(path=_cleaned(path), user=stage.config.config.get("User") or "")
            self._planner.advance(stage, op, (stage.tip,), instruction)
        stage.config.commit(f"WORKDIR {path}", layer=makes)


def _cleaned(path: str) -> str:
    """Return `path` without "." and "..", which are taken by the letter: links on the way do not count."""
    return "/" + posixpath.normpath(posixpath.join("/", path)).lstrip("/")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _why_no_digest(text: str) -> str:
    """What is wrong with a checksum, in the words of the reference's library."""
    algorithm, _, digits = text.partition(":")
    if not re.fullmatch(r"[a-z0-9]+([.+_-][a-z0-9]+)*:[A-Za-z0-9=_-]+", text):
        return "invalid checksum digest format"
    length = {"sha256": 64, "sha384": 96, "sha512": 128}.get(algorithm)
    if length is None:
        return "unsupported digest algorithm"
    if len(digits) != length:
        return "invalid checksum digest length"
    return "invalid checksum digest format" if algorithm == "sha256" else f"{algorithm} checksums are not supported"


def _proxies(given: Mapping[str, str], env: Mapping[str, str]) -> tuple[str, ...]:
    """The proxy arguments in both spellings, for those that the environment does not have already.

    They may be given in any case; of several the last in order counts, and lower case comes last.
    """
    values = {name.upper(): given[name] for name in sorted(given) if name.upper() in PROXIES}
    found: list[str] = []
    for name in PROXIES:
        if name in values:
            found += [f"{one}={values[name]}" for one in (name, name.lower()) if one not in env]
    return tuple(found)


def _command_text(stage: StageState, args: tuple[str, ...]) -> str:
    """A RUN's arguments as history shows them: the ARGs declared so far, with the values now in force, go before."""
    shown: dict[str, str] = {}
    for name, value in stage.args:
        shown[name] = f"{name}={stage.env.get(name, value or '')}"
    prefix = [f"|{len(shown)}", *shown.values()] if shown else []
    return " ".join([*prefix, *args])


def basename(url: str) -> bytes:
    """The name of what a URL points at: the last part of its path, decoded, however many slashes follow it."""
    from urllib.parse import unquote_to_bytes, urlsplit  # noqa: PLC0415 - few Dockerfiles have URLs

    name = posixpath.basename(unquote_to_bytes(urlsplit(url).path).rstrip(b"/"))
    return b"__unnamed__" if name in (b"", b".", b"..") or b"\0" in name else name


def git_op(reference: GitReference, *, keep_git_dir: bool) -> GitOp:
    """Return the operation that yields what `reference` names."""
    return GitOp(
        remote=reference.remote,
        ref=reference.ref,
        subdir=clean(_bytes(reference.subdir)).decode("utf-8", "surrogateescape"),
        checksum=reference.checksum,
        keep_git_dir=keep_git_dir,
        submodules=reference.submodules is not False,
        mtime=reference.mtime,
        fetch_by_commit=reference.fetch_by_commit,
    )


def _copy_text(keyword: str, spec: CopySpec, remotes: Mapping[int, str], dest: str) -> str:
    """A COPY or ADD as history shows it; `remotes` are the sources that are not of a context, by their places."""
    words = [keyword]
    if spec.parents:
        words.append("--parents")
    if spec.chown:
        words.append("--chown=" + spec.chown)
    if spec.chmod:
        words.append("--chmod=" + spec.chmod)
    shown = dict(remotes)
    for source in spec.sources:
        match source:
            case PathSource(path=path):
                shown[source.word] = path.decode("utf-8", "surrogateescape")
            case TextSource(name=name):
                shown[source.word] = "<<" + name.decode("utf-8", "surrogateescape")
            case TreeSource():
                continue
            case _:
                raise AssertionError("BUG: a downloaded file in a plan")
    return " ".join([*words, *(shown[word] for word in sorted(shown)), dest]) + " # buildkit"
