"""The words of `pybuild build`: its options as a table, of which `builder/cli/build.py` makes a click command."""

from __future__ import annotations

from builder.cli.words import Option, Table
from builder.progress import MODES

NETWORKS = ("default", "none", "host", "bridge")

OPTIONS = (
    Option(("-f", "--file"), "file", str, "FILE", "The Dockerfile (default: CONTEXT/Dockerfile); - is stdin."),
    Option(("-t", "--tag"), "tags", list, "NAME[:TAG]", "A name for the image; repeatable."),
    Option(("--build-arg",), "build_args", list, "NAME[=VALUE]", "A value for an ARG."),
    Option(("--target",), "target", str, "STAGE", "The stage to build (default: the last)."),
    Option(
        ("--platform",),
        "platforms",
        list,
        "OS/ARCH[,…]",
        "What to build for (default: this machine); several make one image with an index.",
    ),
    Option(("--no-cache",), "no_cache", bool, "", "Make every step anew."),
    Option(("--no-cache-filter",), "no_cache_filter", list, "STAGE[,…]", "Make the steps of these stages anew."),
    Option(("--pull",), "pull", bool, "", "Ask the registry for base images even if they are in the store."),
    Option(("--progress",), "progress", str, "MODE", f"How progress is shown: {', '.join(MODES)}."),
    Option(("-q", "--quiet"), "quiet", bool, "", "Print the image's ID and nothing else."),
    Option(("--label",), "labels", list, "NAME[=VALUE]", "A label for the image."),
    Option(("--secret",), "secrets", list, "id=ID[,src=FILE|,env=NAME]", "A secret for RUN --mount, or to fetch with."),
    Option(("--ssh",), "agents", list, "default|ID[=SOCKET]", "A key agent for RUN --mount, or for git."),
    Option(("--build-context",), "contexts", list, "NAME=VALUE", "A further context, or an image by another name."),
    Option(("--add-host",), "add_hosts", list, "HOST:IP", "A line for /etc/hosts of the steps."),
    Option(("--network",), "network", NETWORKS, "", "The network of the steps (default: bridge).", default="default"),
    Option(("--shm-size",), "shm_size", str, "SIZE", "The size of /dev/shm in the steps."),
    Option(("--ulimit",), "ulimits", list, "NAME=SOFT[:HARD]", "A resource limit for the steps."),
    Option(
        ("--allow",),
        "allowed",
        list,
        "ENTITLEMENT",
        "Grant what a RUN asks for: network.host, security.insecure, device or device=NAME[,alias=ALIAS].",
    ),
    Option(
        ("--cdi-spec-dir",),
        "cdi_directories",
        list,
        "DIR",
        "Where devices for RUN --device are described (default: /etc/cdi and /var/run/cdi); the last one wins.",
    ),
    Option(("--iidfile",), "iidfile", str, "FILE", "Write the image's ID to a file."),
    Option(("--metadata-file",), "metadata_file", str, "FILE", "Write what was built to a file, as JSON."),
    Option(
        ("-o", "--output"),
        "outputs",
        list,
        "type=TYPE[,dest=PATH]",
        "Write the result: oci, docker, tar, local, image, registry, or cacheonly (keep the steps, make no image).",
    ),
    Option(("--load",), "load", bool, "", "Keep the image in the store even with -o type=cacheonly."),
    Option(("--push",), "push", bool, "", "Send the image to its registry."),
    Option(
        ("--check",), "check", bool, "", "Look for likely mistakes in the Dockerfile instead of building.", plain=False
    ),
    Option(
        ("--call",),
        "call",
        str,
        "METHOD[,format=FORMAT]",
        "Ask instead of building: check, outline or targets; format is text or json, for check also github or sarif.",
        plain=False,
    ),
    Option(("--format",), "form", str, "FORMAT", "The format of --check or --call.", plain=False),
    Option(("-j", "--jobs"), "jobs", int, "", "How many steps run at once.", least=1),
)

TABLE = Table(OPTIONS, "context", ".")
