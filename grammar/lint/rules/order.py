"""Rules about the order of steps."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator

from grammar.ast import Add, Copy, Run
from grammar.lint.installs import needed_files
from grammar.lint.planned import Context, PlannedFile, PlannedStage, PlannedStep
from grammar.lint.rule import PYBUILD, Finding, GraphRule, found
from grammar.lint.shell import Script, script_of
from grammar.mount import parse_mount
from grammar.text import quote

# What lies here may change what a package manager does.
_SYSTEM = re.compile(r"/(?:$|(?:etc|bin|sbin|lib|lib64|root|var/lib|var/cache|usr(?!/(?:src|app)(?:/|$)))(?:/|$))")
_HOOKS = ("preinstall", "install", "postinstall", "preprepare", "prepare", "postprepare", "prepublish")


class CopyBeforeInstall(GraphRule):
    """Files are copied before packages are installed that do not depend on them.

    What it does: for every COPY and ADD of the build context, or of a stage that has files of it, the rule looks for a
    RUN below it that installs packages (apt-get, apk, dnf, pip, npm, go mod download, cargo fetch, bundle, …) and does
    nothing else. It objects if no file that was copied is needed there: packages of the system and packages by name
    need none, dependencies of a project need their manifest and lock file, which can be copied by themselves. Nothing
    is said where anything else is executed in between or in the same RUN, where the manifest names files or scripts of
    the project (the rule reads it in the context), and where packages are kept in a cache mount.

    Why is this bad: a layer is reused while nothing above it has changed, and sources change all the time.

    Bad:

        COPY . .
        RUN npm ci

    Good:

        COPY package.json package-lock.json ./
        RUN npm ci
        COPY . .
    """

    description = "Files that an installation of packages does not need should be copied after it"
    group = PYBUILD

    def check(self, file: PlannedFile) -> Iterator[Finding]:
        """Yield each COPY or ADD, with the first installation that it repeats."""
        for stage in file.stages.values():
            for at, step in enumerate(stage.steps):
                if not isinstance(step.instruction, Copy | Add) or not _changes_often(file, step):
                    continue
                message = _repeated(file, stage, at)
                if message:
                    yield found(step.instruction, message)


def _changes_often(file: PlannedFile, step: PlannedStep) -> bool:
    if _SYSTEM.match(step.destination):
        return False
    return step.local or (step.stage is not None and file.depends_on_context(step.stage))


def _repeated(file: PlannedFile, stage: PlannedStage, at: int) -> str:
    """What to say of the COPY at an index; nothing if there is no installation below that does not need it."""
    copy = stage.steps[at]
    for step in stage.steps[at + 1 :]:
        if not isinstance(step.instruction, Run):
            continue
        script = script_of(step.instruction)
        files = needed_files(script) if step.posix else None
        if files is None or _mentions(script, copy):
            return ""
        if _mounts(step.instruction, "bind"):
            continue
        shown = quote(next(iter(script.text.strip().splitlines()), "")[:60])
        line = step.instruction.span.start.line
        if not files:
            return (
                f"A change of these files repeats {shown} (line {line}), which does not need them: copy them below it"
            )
        if _mounts(step.instruction, "cache") or not _is_only_fetched(file.context, copy, step.workdir, files):
            return ""
        return f"A change of any file repeats {shown} (line {line}), which needs {_listed(files)} only: copy that first"
    return ""


def _listed(files: tuple[str, ...]) -> str:
    return files[0] if len(files) == 1 else f"{', '.join(files[:-1])} and {files[-1]}"


def _mounts(run: Run, kind: str) -> bool:
    return any(parse_mount(word.text).type == kind for word in run.mounts)


def _mentions(script: Script, copy: PlannedStep) -> bool:
    """Whether a script names what was copied, or where to."""
    names = {copy.destination.rstrip("/"), posixpath.basename(copy.destination.rstrip("/"))}
    names |= {posixpath.basename(source.rstrip("/")) for source in copy.sources}
    wanted = [re.escape(name) for name in names if name.strip("./*")]
    return bool(wanted) and re.search(rf"(?<![\w.-])(?:{'|'.join(wanted)})(?![\w-])", script.text) is not None


def _is_only_fetched(context: Context | None, copy: PlannedStep, workdir: str, files: tuple[str, ...]) -> bool:
    """Whether a directory of the context was copied that has the manifests, and they name no other file of it."""
    if context is None or not copy.local:
        return False
    for source in copy.sources:
        directory = posixpath.normpath("/" + source).lstrip("/")
        if not context.is_directory(directory):
            continue
        below = posixpath.relpath(workdir, copy.destination.rstrip("/") or "/")
        if below.startswith(".."):
            continue
        texts = [context.read(posixpath.normpath(posixpath.join(directory, below, file))) for file in files]
        if texts[0] is not None and not any(_names_files(*pair) for pair in zip(files, texts, strict=True)):
            return True
    return False


def _names_files(name: str, text: str | None) -> bool:
    """Whether a manifest says that more of the project is needed than the manifest itself."""
    if text is None:
        return False
    match posixpath.basename(name):
        case "package.json":
            return _package_names_files(text)
        case "go.mod":
            return re.search(r"=>\s*\.{0,2}/", text) is not None
        case "Gemfile":
            return re.search(r"\b(?:path|gemspec|eval_gemfile|File|require_relative)\b", text) is not None
        case "Cargo.toml":
            return re.search(r"^\s*\[workspace|\bpath\s*=", text, re.MULTILINE) is not None
        case "pom.xml":
            return "<module>" in text or "<systemPath>" in text
        case "composer.json":
            return '"path"' in text
        case "pyproject.toml" | "Pipfile":
            return re.search(r"\bpath\s*=|\bworkspace\b|\bfile\s*=", text) is not None
    # What is left are pip's files.
    named = r"^\s*(?:-[erc]\b|--(?:editable|requirement|constraint|find-links)\b|[./]|.*\bfile:)"
    return re.search(named, text, re.MULTILINE) is not None


def _package_names_files(text: str) -> bool:
    try:
        package = json.loads(text)
    except ValueError:
        return True
    if not isinstance(package, dict) or "workspaces" in package:
        return True
    scripts = package.get("scripts")
    if isinstance(scripts, dict) and any(hook in scripts for hook in _HOOKS):
        return True
    return re.search(r'"(?:file|link|portal|patch|workspace):', text) is not None
