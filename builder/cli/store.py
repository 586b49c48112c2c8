"""`pybuild store check|gc|du`."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import click

from builder.cachemounts import CacheMounts
from builder.cli.context import Settings
from builder.cli.state import touch_running
from builder.cli.table import echo_table
from builder.errors import UsageError
from builder.logs import sweep_logs
from builder.progress.words import size
from layerstore.recover import DELTA, SMALL

if TYPE_CHECKING:
    from layerstore.gc import Plan

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_HOLDS = {
    "trees": "layers, unpacked",
    "blobs": "layers, packed, and manifests",
    "work": "steps that are running",
    "tmp": "what is being written",
    "locks": "locks",
    "cache-mounts": "cache mounts of RUN",
    "containers": "containers",
    "logs": "output of steps",
}


@click.group("store")
def command() -> None:
    """Check, measure and clean the layer store.

    The store holds images, layers and the cache of builds; `pybuild --root DIR` chooses another one.
    """


@command.command("check")
@click.pass_context
def check(ctx: click.Context) -> None:
    """Recompute every digest and list all that is wrong; nothing is changed.

    The exit status is 1 if something is.
    """
    settings = ctx.find_object(Settings)
    assert settings is not None
    with settings.open_store() as store:
        faults = store.check()
    for fault in faults:
        click.echo(f"{fault.what}: {fault.fault}")
    if faults:
        click.echo(f"{len(faults)} fault{'s' if len(faults) > 1 else ''} in {settings.root}", err=True)
        ctx.exit(1)
    click.echo(f"{settings.root} is clean", err=True)


@click.command("gc")
@click.option(
    "--unused-for", metavar="DURATION", help="Give up cached steps, too, that no build used for so long: 12h, 7d."
)
@click.option("--all", "everything", is_flag=True, help="Give up all cached steps.")
@click.option("--cache-mounts", is_flag=True, help="Remove the caches of RUN --mount=type=cache, too.")
@click.option("-n", "--dry-run", is_flag=True, help="List what would go, and remove nothing.")
@click.pass_obj
def gc(settings: Settings, *, unused_for: str | None, everything: bool, cache_mounts: bool, dry_run: bool) -> None:
    """Remove what nothing needs any more.

    Images stay, and so do cached steps unless an option says otherwise. Layers go that neither needs, what killed
    commands left behind, and the output of steps after a week. What a running command uses is never taken. `prune` is
    the same command.
    """
    if everything and unused_for is not None:
        raise UsageError("--all and --unused-for exclude each other", hint="leave one of them out")
    now = int(settings.clock() * 1_000_000_000)
    since = now if everything else 0
    if unused_for is not None:
        since = now - duration(unused_for) * 1_000_000_000
    # The lease makes the plan spare what is touched first; what started after that, the sweep sees touched again.
    with settings.open_store() as store, store.lease():
        touch_running(settings, store)
        plan = store.gc(keep_used_since=since)
        if dry_run:
            for line in plan.describe():
                click.echo(line)
            click.echo(f"Would free {size(_reclaimable(os.fsencode(settings.root), plan))}", err=True)
            return
        touch_running(settings, store)
        sweep_logs(settings.root / "logs", now=settings.clock())
        if cache_mounts:
            CacheMounts(store=store).sweep()
        click.echo(f"Freed {size(store.sweep(plan))}", err=True)


command.add_command(gc)
command.add_command(gc, "prune")


@command.command("du")
@click.pass_obj
def du(settings: Settings) -> None:
    """Show what takes how much space on disk, and how much of it `pybuild store gc` would free."""
    with settings.open_store() as store, store.lease():
        touch_running(settings, store)
        plan = store.gc()
    root = os.fsencode(settings.root)
    rows: list[tuple[str, str, str]] = []
    total = 0
    for name in sorted(os.listdir(root)):
        weight = weigh(os.path.join(root, name))
        total += weight
        text = os.fsdecode(name)
        rows.append((text, size(weight), _HOLDS.get(text, "records" if text.startswith("store.db") else "")))
    echo_table(("PLACE", "SIZE", "HOLDS"), rows)
    click.echo(f"{size(total)} in {settings.root}, {size(_reclaimable(root, plan))} of it not needed")


def duration(text: str) -> int:
    """Return a duration such as `90s`, `12h` or `7d` in seconds; UsageError if it is none."""
    match = re.fullmatch(r"(\d+)([smhdw])", text)
    if match is None:
        raise UsageError(f"{text!r} is no duration", hint="write a number and s, m, h, d or w, such as 12h or 7d")
    return int(match[1]) * _SECONDS[match[2]]


def weigh(path: bytes) -> int:
    """Return the bytes that what is at `path` takes on disk; nothing if it is gone."""
    try:
        total = os.lstat(path).st_blocks * 512
    except FileNotFoundError:
        return 0
    for folder, names, files in os.walk(path):
        for name in (*names, *files):
            try:
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
            except FileNotFoundError:
                continue  # another command removed it meanwhile
    return total


def _reclaimable(root: bytes, plan: Plan) -> int:
    trees = [os.path.join(root, b"trees", text[7:].encode()) for text in plan.layers]
    places = [tree + form for tree in trees for form in (b"", DELTA, SMALL)]
    places += [os.path.join(root, b"blobs/sha256", text[7:].encode()) for text in plan.blobs]
    places += [os.path.join(root, path) for path in plan.litter]
    return sum(map(weigh, places))
