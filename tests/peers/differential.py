"""Build Dockerfiles with a real BuildKit and with pybuild, and say where the images, errors or cache hits differ.

Run by hand where the docker engine with its containerd image store runs:
`DOCKER_HOST=unix:///run/docker.sock python -m tests.peers.differential [--record] FOLDER...`.
Each FOLDER holds cases in the form that `tests/cases/README.md` describes, at any depth.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

from layerstore import Store
from layerstore.reference import Reference
from tests.builder import casekit
from tests.cases import load, oci

PLACE = re.compile(r"^\S*:(\d+)$")
WARNED = re.compile(r"^#\d+ WARN: (\w+): .* \(line (\d+)\)$", re.MULTILINE)
MARKED = re.compile(r"^\s*(\d+) \| >>> ")
SOLVE = "failed to solve: "
# Parts of messages that name the engine's own places, or that pybuild says otherwise: `Dockerfile:3:6: error[code]: …`.
CHANGING = re.compile(
    r"dockerfile parse error on line \d+: |failed to compute cache key: |failed to calculate checksum of ref \S+ "
    r"|/\S*/cachemounts/buildkit\d+"
)


class Engine:
    """A docker engine whose BuildKit builds: the client finds it by DOCKER_HOST."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch

    def load_base(self, store: Store) -> None:
        """Give the engine the image that `store` knows as busybox, byte for byte."""
        base = store.images.get(Reference.parse("busybox").canonical)
        assert base is not None
        archive = self.scratch / "base.tar"
        names = {"Config": "config.json", "RepoTags": ["busybox:latest"], "Layers": ["layer.tar"]}
        members = {
            "config.json": base.config,
            "layer.tar": casekit.layer_tars(store, base.layers)[0],
            "manifest.json": json.dumps([names]).encode(),
        }
        with tarfile.open(archive, "w") as out:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                out.addfile(info, BytesIO(data))
        subprocess.run(["docker", "load", "--quiet", "--input", archive], check=True, stdout=subprocess.DEVNULL)

    def forget(self) -> None:
        """Empty the build cache."""
        subprocess.run(["docker", "builder", "prune", "--all", "--force"], check=True, stdout=subprocess.DEVNULL)

    def build(self, options: load.Build, place: Path, progress: str) -> tuple[Path | None, str]:
        """Build one step laid out at `place`; return the OCI archive, or None, and what was printed."""
        made = self.scratch / "image.tar"
        made.unlink(missing_ok=True)
        words = ["docker", "buildx", "build", "--provenance=false", "--progress", progress]
        words += ["--output", f"type=oci,dest={made}", "--network", options.network or "none"]
        words += ["--file", str(place / "context" / options.file)]
        words += [] if options.target is None else ["--target", options.target]
        words += [f"--build-arg={name}={value}" for name, value in options.build_args.items()]
        words += [f"--label={name}={value}" for name, value in options.labels.items()]
        words += [f"--secret=id={name},src={place / 'secrets' / name}" for name in options.secrets]
        words += [f"--add-host={host}" for host in options.add_hosts]
        for name, value in options.named_contexts.items():
            words.append(f"--build-context={name}={value if isinstance(value, str) else place / 'named' / name}")
        done = subprocess.run([*words, str(place / "context")], capture_output=True, text=True, check=False)
        return (made if done.returncode == 0 else None), done.stderr


def answer(engine: Engine, store: Store, folder: Path, place: Path) -> dict[str, Any]:
    """Return what BuildKit makes of a case, in the shape of expected.json."""
    case = load.load(folder)
    load.materialise(folder, place)
    engine.forget()  # of contexts, too: the engine takes files of one time and size for the same
    if case.expect == "cache":
        return {"builds": [_cache_steps(engine, case, step, place) for step in case.steps]}
    made, printed = engine.build(case.steps[0].build, place, "plain")
    warned = {"warnings": _warnings(printed)} if "warnings" in case.record else {}
    if made is None:
        return {"error": _error(printed)} | warned
    base = store.images.get(Reference.parse("busybox").canonical)
    assert base is not None
    image = oci.read_layout(made)
    diff_ids = image.config["rootfs"]["diff_ids"] or []
    below = len(base.layers) if tuple(diff_ids[: len(base.layers)]) == tuple(base.layers) else 0
    tree, removed = oci.delta(oci.flatten(image.layers[:below]), oci.flatten(image.layers))
    config = dict(image.config.get("config", {}))
    config |= {key: image.config[key] for key in ("author", "os", "architecture", "variant") if key in image.config}
    # The exporter fills up the history of a base that has a layer and no entry for it.
    history = [
        {key: one[key] for key in one if key != "created"}
        for one in image.config.get("history", [])
        if one.get("comment") != "buildkit.exporter.image.v0"
    ]
    found: dict[str, Any] = {
        "tree": tree,
        "removed": removed,
        "config": config,
        "layers": len(image.layers) - below,
        "history": history,
    }
    if "layer_files" in case.record:
        found["layer_files"] = [oci.layer_files(one) for one in image.layers[below:]]
    casekit.forget_times(case, tree)
    return {key: value for key, value in (found | warned).items() if key not in case.omit}


def _warnings(printed: str) -> list[dict[str, Any]]:
    """Take rules and lines of the warnings out of what a build printed."""
    return sorted(({"rule": rule, "line": int(line)} for rule, line in WARNED.findall(printed)), key=casekit.place_of)


def _error(printed: str) -> dict[str, Any]:
    """Take message and marked lines out of what a failed build printed."""
    message = next((line for line in reversed(printed.splitlines()) if line.startswith("ERROR: ")), printed)
    message = CHANGING.sub("", message.rpartition(SOLVE)[2])
    marked = [int(found[1]) for line in printed.splitlines() if (found := MARKED.match(line))]
    if not marked:
        marked = [int(found[1]) for line in printed.splitlines() if (found := PLACE.match(line))]
    return {"fragment": message, "lines": [marked[0], marked[-1]] if marked else None, "message": message}


def _cache_steps(engine: Engine, case: load.Case, step: load.Step, place: Path) -> list[dict[str, Any]]:
    load.write_entries(place / "context", step.edit)
    made, printed = engine.build(step.build, place, "rawjson")
    assert made is not None, f"{case.name}: {printed}"
    steps: dict[str, dict[str, Any]] = {}
    for line in printed.splitlines():
        for vertex in json.loads(line).get("vertexes") or [] if line.startswith("{") else []:
            prefix, _, text = vertex["name"].partition("] ")
            if "completed" in vertex and "/" in prefix and not text.startswith("FROM "):
                stage = prefix.strip("[").rpartition(" ")[0].strip() or 0
                steps[vertex["digest"]] = {"stage": stage, "step": text, "cached": bool(vertex.get("cached"))}
    return list(steps.values())


def differences(store: Store, folder: Path, expected: dict[str, Any], place: Path) -> list[str]:
    """Return in words how pybuild's answer differs from `expected`."""
    case = replace(load.load(folder), expected=expected)
    load.materialise(folder, place)
    match case.expect:
        case "cache":
            return casekit.check_cache(store, case, place)
        case _ if "error" in expected:
            return casekit.check_error(store, case, place)
        case _:
            return casekit.check_image(store, case, place)


def compare(engine: Engine, store: Store, folder: Path, *, record: bool) -> list[str]:
    """Ask both about one case; `record` keeps BuildKit's answer as the case's expected.json."""
    with tempfile.TemporaryDirectory(dir=engine.scratch) as place:
        expected = answer(engine, store, folder, Path(place, "reference"))
        if record:
            (folder / "expected.json").write_text(_lines(expected) + "\n")
        try:
            if load.load(folder).expect != "cache":
                return differences(store, folder, expected, Path(place, "own"))
            with Store.open(Path(place, "store")) as own:
                casekit.make_base(own, Path(place))
                return differences(own, folder, expected, Path(place, "own"))
        except casekit.ERRORS as error:
            return [f"{type(error).__name__}: {error}"]


def _lines(value: Any, indent: str = "") -> str:
    """Return JSON that differs by line: objects and lists are broken up two levels deep."""
    if len(indent) == 4 or not isinstance(value, dict | list) or not value:
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        inner = [f"{json.dumps(key, ensure_ascii=False)}: {_lines(one, indent + '  ')}" for key, one in value.items()]
    else:
        inner = [_lines(one, indent + "  ") for one in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n{indent}  " + f",\n{indent}  ".join(inner) + f"\n{indent}{closing}"


def folders(roots: Sequence[Path]) -> Iterator[Path]:
    """Yield the cases at and below `roots`."""
    for root in roots:
        for found in sorted(root.rglob("case.json")):
            yield found.parent


def main() -> int:
    """Compare every case; return how many differ, at most 100."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true", help="write BuildKit's answers into the cases")
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="differential-"))
    different = total = 0
    try:
        engine = Engine(scratch)
        with Store.open(scratch / "store") as store:
            casekit.make_base(store, scratch)
            engine.load_base(store)
            for folder in folders(options.folders):
                total += 1
                words = compare(engine, store, folder, record=options.record)
                different += bool(words)
                if words:
                    sys.stdout.write("\n    ".join([str(folder), *words]) + "\n")
    finally:
        shutil.rmtree(scratch)
    sys.stdout.write(f"{total} compared, {different} differ\n")
    return min(different, 100)


if __name__ == "__main__":
    sys.exit(main())
