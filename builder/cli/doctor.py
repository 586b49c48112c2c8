"""`pybuild doctor`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from builder.cli.context import Settings

if TYPE_CHECKING:
    from runner.probe import Abilities

RUNGS = {
    0: "none: containers cannot be run here",
    1: "root: overlayfs, all namespaces, bridge networks",
    2: "user namespace with subordinate ids: overlayfs, several users",
    3: "user namespace with one id: overlayfs, a single user",
    4: "chroot on a copy, weaker isolation",
}
SUPPORTED = (1,)
"""The rungs that this version runs containers on."""


@click.command("doctor")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="How to print it.")
@click.pass_obj
def command(settings: Settings, *, form: str) -> int:
    """Say what this host allows, and what it lacks.

    Every ability is tried, nothing is left behind. The exit status is 0 if containers can be run here, 1 if not.
    """
    from runner.probe import probe  # noqa: PLC0415 - --help need not know

    abilities = probe(path=settings.environ.get("PATH", ""))
    click.echo(as_json(abilities) if form == "json" else as_text(abilities))
    return 0 if abilities.rung in SUPPORTED else 1


def as_json(abilities: Abilities) -> str:
    """The abilities as one JSON object, with `supported`: whether this version runs containers here."""
    document = asdict(abilities)
    document["capabilities"] = sorted(abilities.capabilities)
    document["supported"] = abilities.rung in SUPPORTED
    return json.dumps(document, indent=2)


def as_text(abilities: Abilities) -> str:
    """The abilities as a table, then the verdict."""
    has = abilities.capabilities
    rows: list[tuple[str, str]] = [
        ("user id", str(abilities.uid)),
        ("capabilities", f"{len(has)}, " + ("with" if "CAP_SYS_ADMIN" in has else "without") + " CAP_SYS_ADMIN"),
        ("namespaces", _yes(abilities.namespaces)),
        ("user namespaces", _yes(abilities.user_namespaces)),
        ("overlayfs as root", _yes(abilities.overlay_root)),
        ("overlayfs in a user namespace", _yes(abilities.overlay_userns)),
        ("new mount API", _yes(abilities.new_mount_api) + (", lowerdir+" if abilities.lowerdir_plus else "")),
        ("seccomp filters", _yes(abilities.seccomp)),
        ("cgroup version", abilities.cgroup_version),
        ("writable controllers", " ".join(abilities.cgroup_controllers) or "none"),
        ("subordinate ids", f"{abilities.subuids}, newuidmap: {_yes(abilities.newuidmap)}"),
        ("bridge networks", _yes(abilities.bridge and abilities.net_admin)),
        ("NAT by nf_tables", _yes(abilities.nftables)),
        ("rootless networks", " ".join(abilities.rootless_network) or "none"),
        ("foreign architectures", " ".join(abilities.binfmt) or "none"),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    lines += ["", f"isolation: rung {abilities.rung} ({RUNGS[abilities.rung]})"]
    if abilities.rung not in SUPPORTED:
        lines.append("this version runs containers as root with CAP_SYS_ADMIN only (rung 1)")
    if abilities.missing:
        better = "for the next better rung" if abilities.rung != 1 else "for all of it"
        lines += [f"{better}: {need}" for need in abilities.missing]
    return "\n".join(lines)


def _yes(value: bool) -> str:  # noqa: FBT001 - it says what the value says
    return "yes" if value else "no"
