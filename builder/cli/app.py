"""The table of commands and how the first word finds one. A command has a file of its own, imported when it is run.

A first word that is no command belongs to `build`: `pybuild -t app:1 .` and `pybuild build -t app:1 .` are the same.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

import click

from builder.cli.context import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT = "build"


class Listed(NamedTuple):
    """What `pybuild --help` says of a command without importing it."""

    module: str
    section: str
    summary: str


COMMANDS = {
    "build": Listed("build", "Build", "Build an image from a Dockerfile"),
    "base": Listed("base", "Build", "Make a base image from what this machine has"),
    "images": Listed("images", "Images", "List images"),
    "inspect": Listed("inspect", "Images", "Show everything about images as JSON"),
    "history": Listed("history", "Images", "Show how an image was made, newest step first"),
    "tag": Listed("tag", "Images", "Give an image one more name"),
    "rmi": Listed("rmi", "Images", "Remove images or names of images"),
    "save": Listed("save", "Images", "Write images to an archive or an OCI layout"),
    "load": Listed("load", "Images", "Read images from an archive or an OCI layout"),
    "import": Listed("import_", "Images", "Make an image from a tar of a root file system"),
    "run": Listed("run", "Containers", "Run a command in a new container"),
    "ps": Listed("ps", "Containers", "List containers"),
    "logs": Listed("logs", "Containers", "Show the output of a container"),
    "stop": Listed("stop", "Containers", "Stop containers: a signal, then SIGKILL"),
    "kill": Listed("kill", "Containers", "Send a signal to containers"),
    "rm": Listed("rm", "Containers", "Remove containers"),
    "pull": Listed("pull", "Registry", "Fetch an image from a registry"),
    "push": Listed("push", "Registry", "Send an image to a registry"),
    "login": Listed("login", "Registry", "Store credentials for a registry"),
    "logout": Listed("logout", "Registry", "Forget the credentials of a registry"),
    "fmt": Listed("fmt", "Dockerfile", "Tidy the layout of Dockerfiles"),
    "check": Listed("check", "Dockerfile", "Look for likely mistakes in a Dockerfile"),
    "targets": Listed("targets", "Dockerfile", "List the stages that can be built"),
    "outline": Listed("outline", "Dockerfile", "Show the arguments, secrets and key agents of a target"),
    "graph": Listed("graph", "Dockerfile", "Show the steps of a target and what each needs"),
    "parse": Listed("parse", "Dockerfile", "Show how a Dockerfile is understood"),
    "expand": Listed("expand", "Dockerfile", "Expand the variables of a word as a Dockerfile does"),
    "lsp": Listed("lsp", "Dockerfile", "Serve an editor that edits Dockerfiles"),
    "store": Listed("store", "Machine", "Check, measure and clean the layer store"),
    "doctor": Listed("doctor", "Machine", "Say what this host allows, and what it lacks"),
}
"""Every command in the order of `pybuild --help`."""


class App(click.Group):
    """The group of COMMANDS; knows names and summaries, imports a command only to run it or to show its own help."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command of that name; None if there is none."""
        listed = COMMANDS.get(cmd_name)
        if listed is None:
            return None
        command = import_module(f"builder.cli.{listed.module}").command
        assert isinstance(command, click.Command), f"BUG: builder.cli.{listed.module}.command is no command"
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the options that come before the command; what follows goes to that command, or to the default one."""
        first = self.skip_own_options(args)
        if first < len(args) and args[first] not in COMMANDS:
            _refuse_misspelling(ctx, args[first])
            args = [*args[:first], DEFAULT, *args[first:]]
        return super().parse_args(ctx, args)

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section of `--help` for every section of the table."""
        for section in dict.fromkeys(listed.section for listed in COMMANDS.values()):
            with formatter.section(section):
                formatter.write_dl(
                    [(name, listed.summary) for name, listed in COMMANDS.items() if listed.section == section]
                )

    def skip_own_options(self, args: Sequence[str]) -> int:
        """Return the index of the first argument that is not an option of the group itself."""
        takes_value = dict.fromkeys(("-h", "--help"), False)
        for option in self.params:
            if isinstance(option, click.Option):
                takes_value |= dict.fromkeys(option.opts, not option.is_flag)
        index = 0
        while index < len(args):
            name, equals, _ = args[index].partition("=")
            if name not in takes_value:
                return index
            index += 2 if takes_value[name] and not equals else 1
        return len(args)


def _refuse_misspelling(ctx: click.Context, word: str) -> None:
    """Raise UsageError if `word` looks like a command's name and cannot be meant as a build context."""
    if word.startswith("-") or "/" in word or ":" in word or os.path.lexists(word):
        return
    from difflib import get_close_matches  # noqa: PLC0415 - only a word that is no command pays for it

    near = get_close_matches(word, COMMANDS, n=3, cutoff=0.6)
    if near:
        names = " or ".join(f"`pybuild {name}`" for name in near)
        raise Misspelled(f"no command and no directory is called {word!r}", ctx, f"did you mean {names}?")


class Misspelled(click.UsageError):
    """A word that is nearly the name of a command; `hint` names those it is near to."""

    def __init__(self, message: str, ctx: click.Context, hint: str) -> None:
        super().__init__(message, ctx)
        self.hint = hint


def _print_version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 - click's callback
    if wanted:
        from builder.version import VERSION  # noqa: PLC0415

        click.echo(f"pybuild {VERSION}")
        ctx.exit()


@click.command(
    cls=App,
    name="pybuild",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    subcommand_metavar="COMMAND [ARGS]...",
    epilog="Without a command, pybuild builds: `pybuild -t app:1 .` is `pybuild build -t app:1 .`.",
)
@click.option("--root", metavar="DIR", help="Directory of the store [env: PYBUILD_ROOT].")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version."
)
@click.pass_context
def app(ctx: click.Context, root: str | None, debug: bool) -> None:  # noqa: FBT001 - a click option
    """Build images from Dockerfiles and run them, without a daemon."""
    ctx.obj = Settings.from_process(root=root, debug=debug)
