"""The options of `pybuild run` as a table, and the quick way to read a command line by it.

`builder/cli/run.py` makes a click command of the same table. Reading by click takes longer than starting a container,
so whatever is plain is read here, with the same result; on anything else this gives up, and click reads or refuses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

PULL = ("missing", "always", "never")
NETWORKS = ("bridge", "host", "none")


class Option(NamedTuple):
    """One option: its names and the name of its value, then what `--help` says of it.

    `type` is bool for a flag, list for texts that add up, a tuple for a choice of texts.
    """

    names: tuple[str, ...]
    value: str
    type: type[bool | str | int | float | list[str]] | tuple[str, ...]
    metavar: str
    help: str
    default: str | None = None


OPTIONS = (
    Option(("--rm",), "remove", bool, "", "Remove the container, and its anonymous volumes, when it ends."),
    Option(("-i", "--interactive"), "interactive", bool, "", "Pass standard input on."),
    Option(("-t", "--tty"), "terminal", bool, "", "Give the container a terminal."),
    Option(("-d", "--detach"), "detach", bool, "", "Run in the background and print the container's ID."),
    Option(("--name",), "name", str, "", "The container's name (default: a random one).", default=""),
    Option(("-e", "--env"), "env", list, "NAME[=VALUE]", "Set a variable, or pass on your own."),
    Option(("--env-file",), "env_files", list, "FILE", "Read variables from a file."),
    Option(("-v", "--volume"), "volumes", list, "[SOURCE:]TARGET[:ro]", "Mount a directory or a volume."),
    Option(("--mount",), "mounts", list, "type=TYPE,…", "Mount a bind, volume or tmpfs."),
    Option(("--tmpfs",), "tmpfs", list, "TARGET[:OPTIONS]", "Mount a file system in memory."),
    Option(("-w", "--workdir"), "workdir", str, "DIR", "The working directory."),
    Option(("-u", "--user"), "user", str, "USER[:GROUP]", "The user, by name or number."),
    Option(("--entrypoint",), "entrypoint", str, "PROGRAM", 'Replace the image\'s entrypoint; "" takes it away.'),
    Option(("-p", "--publish"), "publish", list, "[[IP:]HOST:]PORT", "Publish a port, or a range of them."),
    Option(("-P", "--publish-all"), "publish_all", bool, "", "Publish every port that the image exposes."),
    Option(("--network", "--net"), "network", NETWORKS, "", "The network [bridge].", default="bridge"),
    Option(("-h", "--hostname"), "hostname", str, "NAME", "The host name (default: the short ID)."),
    Option(("--add-host",), "add_hosts", list, "HOST:IP", "A line for /etc/hosts."),
    Option(("--dns",), "dns", list, "IP", "A name server instead of the host's."),
    Option(("-m", "--memory"), "memory", str, "SIZE", "The most memory it may use."),
    Option(("--memory-swap",), "memory_swap", str, "SIZE", "The most memory and swap together; -1 is unlimited swap."),
    Option(("--cpus",), "cpus", float, "N", "How many CPUs it may use, as in 1.5."),
    Option(("-c", "--cpu-shares"), "cpu_shares", int, "N", "Its weight where CPUs are short (1024 is normal)."),
    Option(("--cpuset-cpus",), "cpuset_cpus", str, "LIST", "The CPUs it may run on, as in 0-2,4.", default=""),
    Option(("--pids-limit",), "pids_limit", int, "N", "The most processes and threads; -1 is unlimited."),
    Option(("--ulimit",), "ulimits", list, "NAME=SOFT[:HARD]", "A resource limit."),
    Option(("--shm-size",), "shm_size", str, "SIZE", "The size of /dev/shm (default: 64m)."),
    Option(("--read-only",), "read_only", bool, "", "Make the root file system read-only."),
    Option(("--privileged",), "privileged", bool, "", "All capabilities, all devices, no confinement."),
    Option(("--cap-add",), "cap_add", list, "NAME", "Add a capability, or ALL."),
    Option(("--cap-drop",), "cap_drop", list, "NAME", "Drop a capability, or ALL."),
    Option(("--security-opt",), "security_options", list, "OPTION", "Change the confinement."),
    Option(("--init",), "init", bool, "", "Run a small init as process 1 that reaps and passes signals on."),
    Option(("-l", "--label"), "labels", list, "KEY[=VALUE]", "A label for the container."),
    Option(
        ("--stop-signal",), "stop_signal", str, "SIGNAL", "The signal that `pybuild stop` sends (default: the image's)."
    ),
    Option(("--stop-timeout",), "stop_timeout", int, "SECONDS", "How long `pybuild stop` waits (default: 10)."),
    Option(("--pull",), "pull", PULL, "", "When to ask the registry (default: missing).", default="missing"),
    Option(("--platform",), "platform", str, "OS/ARCH", "The platform of the image (default: this machine's)."),
)


class Call(NamedTuple):
    """A call of `pybuild run`: the options of pybuild itself, and every value of `OPTIONS`, `image` and `args`."""

    root: str | None
    debug: bool
    given: dict[str, Any]


def read_call(words: Sequence[str]) -> Call | None:
    """Return what a command line (without the program) asks of `run`; None if it has to be read by click."""
    root: str | None = None
    debug = False
    todo = list(reversed(words))
    while todo and todo[-1] != "run":
        word = todo.pop()
        name, equals, value = word.partition("=")
        if word == "--debug":
            debug = True
        elif name == "--root" and (equals or todo):
            root = value if equals else todo.pop()
        else:
            return None
    if not todo:
        return None
    todo.pop()
    given = _read(todo)
    return None if given is None else Call(root, debug, given)


def _read(todo: list[str]) -> dict[str, Any] | None:
    """Read options, image and arguments from a reversed list of words."""
    given: dict[str, Any] = {option.value: _absent(option) for option in OPTIONS}
    by_name = {name: option for option in OPTIONS for name in option.names}
    while todo and todo[-1].startswith("-") and todo[-1] != "-":
        word = todo.pop()
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            option = by_name.get(name)
            if option is None or (equals and option.type is bool):
                return None
        else:
            option = by_name.get(word[:2])
            equals, value = word[2:3], word[2:]
            if option is None:
                return None
            if option.type is bool and value:
                todo.append("-" + value)  # -it is -i -t
        if option.type is bool:
            given[option.value] = True
        elif (not equals and not todo) or not _take(given, option, value if equals else todo.pop()):
            return None
    if not todo:
        return None
    given["image"] = todo.pop()
    given["args"] = tuple(reversed(todo))
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def _absent(option: Option) -> Any:
    if option.type is bool:
        return False
    return [] if option.type is list else option.default


def _take(given: dict[str, Any], option: Option, text: str) -> bool:
    """Note one value; False if it is not of its option's type."""
    match option.type:
        case tuple(choices):
            if text not in choices:
                return False
            given[option.value] = text
        case kind if kind is list:
            given[option.value].append(text)
        case kind:
            try:
                given[option.value] = kind(text)
            except ValueError:
                return False
    return True
