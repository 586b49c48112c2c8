"""The words of `pybuild run`: its options as a table, of which `builder/cli/run.py` makes a click command."""

from __future__ import annotations

from builder.cli.words import Option, Table

PULL = ("missing", "always", "never")
NETWORKS = ("bridge", "host", "none")

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

TABLE = Table(OPTIONS, "image")
