"""`pybuild check`, and what `pybuild build --check` does: what the rules say, and what they can repair."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from builder.build import BuildOptions
from builder.check import Report, check_text
from builder.checkconfig import load, parse_names
from builder.cli.checkformats import FORMATS, present
from builder.cli.context import Settings
from builder.cli.inputs import fetch_with, is_remote_context, parse_pairs, read_inputs
from builder.cli.state import state_directory
from builder.errors import UsageError
from builder.plan import PlanOptions
from builder.progress.quiet import Quiet
from grammar.diagnostics import Severity
from grammar.lint.rules import RULES
from grammar.lint.selection import EVERYTHING, Selection
from layerstore.platforms import Platform

if TYPE_CHECKING:
    from layerstore import Store


@click.command("check")
@click.argument("context", default=".")
@click.option("-f", "--file", metavar="FILE", help="The Dockerfile (default: CONTEXT/Dockerfile); - is stdin.")
@click.option("--target", metavar="STAGE", help="Look at what this stage needs (default: at every stage).")
@click.option("--build-arg", "build_args", multiple=True, metavar="NAME[=VALUE]", help="A value for an ARG.")
@click.option("--select", multiple=True, metavar="RULE[,…]", help="Look at these rules or groups of rules only.")
@click.option("--ignore", multiple=True, metavar="RULE[,…]", help="Do not look at these rules or groups of rules.")
@click.option("--fix", "fixing", is_flag=True, help="Repair what can be repaired safely, and report the rest.")
@click.option("--unsafe-fixes", is_flag=True, help="With --fix or --diff: repair also what may change the image.")
@click.option("--diff", is_flag=True, help="Write nothing; print what --fix would change. Status 1 if anything.")
@click.option(
    "--explain", metavar="RULE|all", help="Print the page of a rule, or the list of all, and do nothing else."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="text",
    help="For people, as BuildKit's JSON, as annotations of GitHub, or as SARIF.",
)
@click.pass_obj
def command(settings: Settings, /, **given: Any) -> None:
    """Look for likely mistakes in a Dockerfile without building it.

    CONTEXT is a directory, - for a tar or a Dockerfile on standard input, or the URL of a git repository, of an
    archive, or of a Dockerfile. The rules are those of BuildKit and some
    that only pybuild has; docs/rules describes them, and how [tool.pybuild.check] in pyproject.toml or [check] in
    .pybuild.toml choose among them. The exit status is 1 where one of them is broken. Base images are looked up in the
    store only.
    """
    if given["explain"] is not None:
        click.echo(explained(given["explain"]), nl=False)
        return
    chosen, refused = parse_names(given["select"], "--select"), parse_names(given["ignore"], "--ignore")
    context = given["context"]
    remote = is_remote_context(settings, context)
    with settings.open_store() as store, _workspace(context) as workspace, contextlib.ExitStack() as held:
        if remote:
            held.enter_context(store.lease())
        build_args = parse_pairs(given["build_args"], "--build-arg", settings.environ)
        fetch = fetch_with(settings, store, secrets={}, ssh={}, build_args=build_args, progress=Quiet())
        inputs = read_inputs(settings, context, given["file"], unpack_to=workspace, fetch=fetch)
        platform = Platform.parse(settings.platform, host=Platform.of("linux", "amd64"))
        options = BuildOptions(
            plan=PlanOptions(
                platform=platform,
                build_platform=platform,
                context=inputs.context,
                target=given["target"],
                build_args=build_args,
            ),
            dockerfile=inputs.dockerfile,
            name=inputs.name,
            path=inputs.path,
            heeds_ignore_file=inputs.heeds_ignore_file,
            state=state_directory(settings),
        )
        on_disk = inputs.path is not None and context != "-"
        selection = select_rules(settings, options if on_disk else None, chosen, refused)
        if given["fixing"] or given["diff"]:
            _fix(store, options, selection, given, on_disk=on_disk)
        elif given["unsafe_fixes"]:
            raise UsageError("--unsafe-fixes says which fixes, not that any are made", hint="add --fix or --diff")
        else:
            run_check(store, options, given["form"], selection)


@contextlib.contextmanager
def _workspace(context: str) -> Iterator[Path]:
    """A directory for a context that arrives on stdin; others are read where they are."""
    if context != "-":
        yield Path(context)
        return
    import tempfile  # noqa: PLC0415 - few contexts arrive on stdin

    with tempfile.TemporaryDirectory(prefix="pybuild-check-") as name:
        yield Path(name)


def select_rules(
    settings: Settings,
    options: BuildOptions | None,
    chosen: Iterable[str] = (),
    refused: Iterable[str] = (),
    *,
    default: Selection = EVERYTHING,
) -> Selection:
    """Return what is looked at: what the command says, else what the project wishes, else `default`; ConfigError.

    `options` is None for a Dockerfile that is no file of the host: the project is then the one the command runs in.
    """
    path = None
    if options is not None and options.path is not None:
        path = options.path.resolve()
    config = load(settings.cwd if path is None else path.parent)
    return config.selection(path, select=chosen, ignore=refused, default=default)


def run_check(store: Store, options: BuildOptions, form: str, selection: Selection) -> None:
    """Check and print; ends the process with 1 where a rule is broken. GrammarError, BuildError."""
    _conclude(check_text(store, options, selection=selection), options, form)


def _conclude(report: Report, options: BuildOptions, form: str) -> None:
    click.echo(present(report, options, form), nl=False)
    if report.failure is not None:
        raise report.failure
    if any(one.severity is not Severity.INFO for one in report.violations):
        raise click.exceptions.Exit(1)


def _fix(store: Store, options: BuildOptions, selection: Selection, given: dict[str, Any], *, on_disk: bool) -> None:
    """Repair the Dockerfile and report on what is left, or show the difference."""
    from builder.cli.rewrite import difference, replace_file  # noqa: PLC0415 - only where something is repaired
    from builder.fix import fix  # noqa: PLC0415

    if not given["diff"] and not on_disk:
        raise UsageError("a Dockerfile on stdin cannot be written back", hint="look at the changes with --diff")
    fixed = fix(store, options, selection, unsafe=given["unsafe_fixes"])
    changed = fixed.text != options.dockerfile
    if given["diff"]:
        click.echo(difference(options.dockerfile, fixed.text, options.name), nl=False)
        raise click.exceptions.Exit(1 if changed else 0)
    if changed:
        assert options.path is not None
        replace_file(options.path, fixed.text)
        for rule in sorted({one.rule.name for one in fixed.repaired}):
            count = sum(one.rule.name == rule for one in fixed.repaired)
            click.echo(f"fixed {options.name}: {rule}" + (f" ({count} times)" if count > 1 else ""), err=True)
    _conclude(fixed.report, options.replace(dockerfile=fixed.text), given["form"])


def explained(name: str) -> str:
    """Return the page of a rule, or a line for every one; UsageError."""
    if name == "all":
        width = max(len(rule.name) for rule in RULES)
        return "".join(f"{rule.name:<{width}}  {rule.group:<8}  {rule.description}\n" for rule in RULES)
    parse_names([name], "--explain")
    rule = next((rule for rule in RULES if rule.name == name), None)
    if rule is None:
        raise UsageError(f"--explain: {name} is a group of rules", hint="name a rule, or all of them with `all`")
    return f"{rule.name} ({rule.group})\n\n{rule.description}\n\n{rule.page}\n" + (
        f"\n{rule.url}\n" if rule.url else ""
    )
