"""Runs one recorded case through the builder and says in words where the answer differs from the reference's."""

from __future__ import annotations

import fnmatch
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builder.build import BuildOptions, Built, build, parse
from builder.check import check as check_dockerfile
from builder.context import LocalContext
from builder.copy import CopySpec, PathSource, plan_copy, select
from builder.errors import BuildError, LocatedError
from builder.events import Completed, Event, Planned, Warned
from builder.plan import ImageContext, LocalDirectory, NamedContext, PlanOptions
from grammar import GrammarError, LocatedGrammarError
from layerstore import Compression, Store, StoreError
from layerstore.platforms import Platform
from layerstore.reference import Reference
from runner import RunnerError
from tests.cases import load, oci

CASES = Path(__file__).parent.parent / "cases"
PLATFORM = Platform.of("linux", "amd64")
BUSYBOX = Path("/bin/busybox")
ERRORS = (BuildError, GrammarError, StoreError, RunnerError)


@dataclass
class Recording:
    """A progress that remembers what happened."""

    events: list[Event] = field(default_factory=list)

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def close(self) -> None:
        """Nothing is open."""


def make_base(store: Store, work: Path) -> None:
    """Put the image that the cases call busybox into `store`."""
    root = work / "base"
    root.mkdir()
    load.make_base(CASES, BUSYBOX, root)
    spec = CopySpec(sources=(PathSource(b"."),), dest=b"/")
    plan = plan_copy(spec, select(spec, LocalContext(root)), None)
    layer = store.layers.write(plan.entries())
    recorded = json.loads((CASES / "base.json").read_text())["config"]
    outer = {name: recorded.pop(name) for name in ("architecture", "os")}
    config = {**outer, "config": recorded, "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]}, "history": []}
    name = Reference.parse("busybox").canonical
    store.images.put(json.dumps(config).encode(), layers=[layer.diff_id], names=[name])


def no_registry() -> Any:
    """No case needs a registry that answers."""
    from layerstore.registry.errors import Unreachable

    raise Unreachable("there is no registry here")


def build_options(options: load.Build, place: Path) -> BuildOptions:
    """Return what one step of a case is built with whose inputs are laid out at `place`."""
    context = place / "context"
    contexts: dict[str, NamedContext] = {}
    for name, value in options.named_contexts.items():
        if isinstance(value, str):
            contexts[name] = ImageContext(reference=value.removeprefix("docker-image://"))
        else:
            contexts[name] = LocalDirectory(path=place / "named" / name)
    secrets = {name: (place / "secrets" / name).read_bytes() for name in options.secrets}
    path = context / options.file
    hosts = tuple((host, address) for host, _, address in (text.partition(":") for text in options.add_hosts))
    return BuildOptions(
        plan=PlanOptions(
            platform=PLATFORM,
            build_platform=PLATFORM,
            context=context,
            target=options.target,
            build_args=dict(options.build_args),
            labels=dict(options.labels),
            contexts=contexts,
            extra_hosts=hosts,
            network=options.network or "default",
        ),
        dockerfile=path.read_bytes(),
        name=options.file,
        path=path,
        state=place / "state",
        network="none",
        secrets=secrets,
    )


def run_build(store: Store, options: load.Build, place: Path, progress: Recording) -> Built:
    """Build one step of a case whose inputs are laid out at `place`."""
    return build(store, build_options(options, place), progress=progress, clock=time.time, client=no_registry)


def layer_tars(store: Store, diff_ids: Sequence[Any]) -> list[bytes]:
    """Return the uncompressed tars of layers."""
    return [store.blobs.read(store.layers.blob(diff_id, Compression.NONE).digest) for diff_id in diff_ids]


def describe(store: Store, case: load.Case, built: Built) -> dict[str, Any]:
    """Return an image in the shape of an image's expected.json."""
    document = json.loads(built.image.config)
    base = store.images.get(Reference.parse("busybox").canonical)
    assert base is not None
    on_base = built.image.layers[: len(base.layers)] == base.layers
    below = len(base.layers) if on_base else 0
    tars = layer_tars(store, built.image.layers)
    full = oci.flatten(tars)
    ground = oci.flatten(tars[:below])
    changed, removed = oci.delta(ground, full)
    config = dict(document["config"])
    for name in ("author", "os", "architecture", "variant"):
        if name in document:
            config[name] = document[name]
    history = [{key: value for key, value in entry.items() if key != "created"} for entry in document["history"]]
    answer: dict[str, Any] = {
        "tree": changed,
        "removed": removed,
        "config": config,
        "layers": len(built.image.layers) - below,
        "history": history,
    }
    if "layer_files" in case.record:
        answer["layer_files"] = [oci.layer_files(tar) for tar in tars[below:]]
    return answer


def forget_times(case: load.Case, tree: dict[str, Any]) -> None:
    """Leave the times of those paths only that the case records."""
    for path, record in tree.items():
        if not any(fnmatch.fnmatchcase(path, pattern) for pattern in case.mtimes):
            record.pop("mtime", None)


def check(store: Store, folder: Path, place: Path) -> list[str]:
    """Run the case in `folder`; return the differences in words."""
    case = load.load(folder)
    load.materialise(folder, place)
    match case.expect:
        case "image":
            return check_image(store, case, place)
        case "error":
            return check_error(store, case, place)
        case "cache":
            return check_cache(store, case, place)
        case "lint":
            return check_lint(store, case, place)
    return [f"cases of kind {case.expect} are not run here"]


def check_image(store: Store, case: load.Case, place: Path) -> list[str]:
    progress = Recording()
    built = run_build(store, case.steps[0].build, place, progress)
    actual = describe(store, case, built)
    forget_times(case, actual["tree"])
    return load.compare(actual, case.expected) + _compare_warnings(progress, case)


def check_error(store: Store, case: load.Case, place: Path) -> list[str]:
    expected = case.expected["error"]
    progress = Recording()
    try:
        run_build(store, case.steps[0].build, place, progress)
    except ERRORS as error:
        return _compare_error(error, expected) + _compare_warnings(progress, case)
    return ["the build should have failed"]


def place_of(warning: Mapping[str, Any]) -> tuple[int, str]:
    """Return what warnings are sorted by."""
    return warning["line"], warning["rule"]


def _compare_warnings(progress: Recording, case: load.Case) -> list[str]:
    if "warnings" not in case.record:
        return []
    told = [event.diagnostic for event in progress.events if isinstance(event, Warned)]
    warnings = [{"rule": one.code, "line": one.span.start.line} for one in told if one.span is not None]
    warnings.sort(key=place_of)
    wanted = case.expected["warnings"]
    return [] if warnings == wanted else [f"the build warns {warnings}, should {wanted}"]


def _compare_error(error: Exception, expected: Mapping[str, Any]) -> list[str]:
    words = []
    text = str(getattr(error, "message", error))
    diagnostics = error.diagnostics if isinstance(error, LocatedError | LocatedGrammarError) else ()
    if not any(expected["fragment"] in one for one in (text, *(one.message for one in diagnostics))):
        words.append(f"message {text!r}, should contain {expected['fragment']!r}")
    span = diagnostics[0].span if diagnostics else None
    lines = expected["lines"]
    if lines is not None:
        if span is None:
            words.append(f"no place, should be lines {lines}")
        elif not lines[0] <= span.start.line <= lines[1]:
            words.append(f"line {span.start.line}, should be {lines}")
    return words


def check_cache(store: Store, case: load.Case, place: Path) -> list[str]:
    words = []
    for number, (step, wanted) in enumerate(zip(case.steps, case.expected["builds"], strict=True)):
        load.write_entries(place / "context", step.edit)
        progress = Recording()
        run_build(store, step.build, place, progress)
        names = {event.vertex: event.name for event in progress.events if isinstance(event, Planned)}
        seen = {}
        for event in progress.events:
            if isinstance(event, Completed) and event.vertex in names:
                _, _, text = names[event.vertex].partition("] ")
                seen[text] = event.cached
        for one in wanted:
            got = seen.get(one["step"])
            if got is None:
                words.append(f"build {number}: no step {one['step']!r} among {sorted(seen)}")
            elif got != one["cached"]:
                words.append(f"build {number}: {one['step']!r} cached {got}, should be {one['cached']}")
    return words


def check_lint(store: Store, case: load.Case, place: Path) -> list[str]:
    options = build_options(case.steps[0].build, place)
    report = check_dockerfile(store, options, parse(options), whole=True)
    words = [] if report.error is None else [f"it could not be planned: {report.error}"]
    warnings = [{"rule": one.rule.name, "line": one.lines[0], "message": one.message} for one in report.violations]
    if warnings != case.expected["warnings"]:
        words.append(f"warnings {warnings}, should be {case.expected['warnings']}")
    return words
