"""What each instruction, flag and mount option is for, in a few words: data that editors show and nothing checks by.

Which of them there are is decided elsewhere (`node.py`, `flags.py`, `mount.py`); a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

_BOOLEAN = ("true", "false")


class Option(NamedTuple):
    """A flag or a key: what its value looks like, what it does, and the values worth offering."""

    value: str
    text: str
    values: tuple[str, ...] = ()


class Page(NamedTuple):
    """An instruction: `forms` are its syntax, `flags` those it takes; `text` is a paragraph for those who ask."""

    summary: str
    forms: tuple[str, ...]
    text: str
    flags: Mapping[str, Option]


_CHOWN = Option("USER[:GROUP]", "The owner of what is written; names are looked up in the image's own files.")
_CHMOD = Option("MODE", "The permissions of what is written: octal such as `644`, or symbolic such as `u=rwX,go=rX`.")
_LINK = Option("", "Write a layer that depends on nothing below it, so that it stays valid when the base changes.")
_EXCLUDE = Option("PATTERN", "Leave out what matches, as a line of an ignore file does; may be repeated.")

INSTRUCTIONS: Mapping[str, Page] = {
    "from": Page(
        "Begins a stage on a base image.",
        ("FROM [--platform=PLATFORM] IMAGE [AS NAME]",),
        "The image is a reference, the name of a stage above, or `scratch` for nothing. Only ARG may stand above the "
        "first FROM, and only such ARGs count in it.",
        {
            "platform": Option(
                "OS/ARCH[/VARIANT]",
                "The platform of the base image; `$BUILDPLATFORM` is the machine that builds.",
                ("$BUILDPLATFORM", "$TARGETPLATFORM", "linux/amd64", "linux/arm64", "linux/arm/v7"),
            )
        },
    ),
    "run": Page(
        "Runs a command and keeps what it changes in the file system.",
        ("RUN [FLAGS] COMMAND", 'RUN [FLAGS] ["PROGRAM", "ARGUMENT"]', "RUN [FLAGS] <<EOF"),
        "The first form is given to the shell (`SHELL`), the second is executed as it is, the third is a script.",
        {
            "mount": Option("type=TYPE,…", "Make something available to this command alone; may be repeated."),
            "network": Option("MODE", "The network of the command.", ("default", "none", "host")),
            "security": Option("MODE", "How the command is confined.", ("sandbox", "insecure")),
            "device": Option(
                "VENDOR/CLASS[=NAME][,required]",
                "Devices of the host (CDI) for the command alone: by name, by class, `*` for all; may be repeated.",
            ),
        },
    ),
    "copy": Page(
        "Copies files from the context, or from elsewhere, into the image.",
        (
            "COPY [FLAGS] SOURCE… DESTINATION",
            'COPY [FLAGS] ["SOURCE", "DESTINATION"]',
            "COPY [FLAGS] <<EOF DESTINATION",
        ),
        "Of a directory the content is copied, not the directory itself. A destination that ends with `/` is a "
        "directory; one that does not begin with `/` is below WORKDIR.",
        {
            "from": Option("STAGE", "Copy from this stage, image or named context instead of the context."),
            "chown": _CHOWN,
            "chmod": _CHMOD,
            "link": _LINK,
            "parents": Option("", "Keep the directories above each source; those left of a `/./` are dropped."),
            "exclude": _EXCLUDE,
        },
    ),
    "add": Page(
        "Like COPY, and it downloads from URLs and unpacks local archives.",
        ("ADD [FLAGS] SOURCE… DESTINATION", 'ADD [FLAGS] ["SOURCE", "DESTINATION"]'),
        "A local tar, plain or compressed, is unpacked; a download is not, unless `--unpack` says so. COPY is the "
        "better choice for plain files.",
        {
            "chown": _CHOWN,
            "chmod": _CHMOD,
            "link": _LINK,
            "keep-git-dir": Option("", "Keep the `.git` directory of a repository.", _BOOLEAN),
            "checksum": Option("sha256:…", "Refuse a download that has another digest."),
            "unpack": Option("", "Whether archives are unpacked, downloaded ones included.", _BOOLEAN),
            "exclude": _EXCLUDE,
        },
    ),
    "arg": Page(
        "Declares a variable that a build can be given with `--build-arg`.",
        ("ARG NAME[=DEFAULT]…",),
        "It counts from here to the end of the stage, and is not kept in the image. Above the first FROM it counts in "
        "FROM lines; a stage that repeats `ARG NAME` without a default takes that value over.",
        {},
    ),
    "env": Page(
        "Sets environment variables for what follows, and for containers.",
        ("ENV NAME=VALUE…", "ENV NAME VALUE"),
        "The values stay in the image. An ENV wins over an ARG of the same name. The second form is the old one.",
        {},
    ),
    "label": Page(
        "Attaches metadata to the image.",
        ("LABEL KEY=VALUE…",),
        "Common keys are those of the OCI image spec, such as `org.opencontainers.image.source`.",
        {},
    ),
    "cmd": Page(
        "Says what a container runs unless it is told otherwise.",
        ('CMD ["PROGRAM", "ARGUMENT"]', "CMD COMMAND"),
        "With an ENTRYPOINT in the exec form these are its arguments. The last CMD of a stage counts.",
        {},
    ),
    "entrypoint": Page(
        "Says which program a container is.",
        ('ENTRYPOINT ["PROGRAM", "ARGUMENT"]', "ENTRYPOINT COMMAND"),
        "What `run` is given, or CMD, becomes its arguments; the shell form takes none and gets no signals. The last "
        "ENTRYPOINT of a stage counts.",
        {},
    ),
    "workdir": Page(
        "Changes the working directory, and makes it where it does not exist.",
        ("WORKDIR PATH",),
        "It counts for RUN, COPY, ADD, CMD and ENTRYPOINT. A relative path is below the one before.",
        {},
    ),
    "user": Page(
        "Changes the user, and maybe the group, of RUN, CMD and ENTRYPOINT.",
        ("USER NAME[:GROUP]",),
        "Names are those of the image's `/etc/passwd` and `/etc/group`; numbers need no entry there.",
        {},
    ),
    "expose": Page(
        "Documents the ports that the program listens on.",
        ("EXPOSE PORT[-PORT][/PROTOCOL]…",),
        "Nothing is published by it; `run -P` publishes these ports, `run -p` any. The protocol is `tcp` or `udp`.",
        {},
    ),
    "volume": Page(
        "Marks directories whose content is not part of the image.",
        ('VOLUME ["PATH"]', "VOLUME PATH…"),
        "A container gets a fresh volume at each, unless `run -v` names one.",
        {},
    ),
    "shell": Page(
        "Sets the program that shell forms are handed to.",
        ('SHELL ["PROGRAM", "ARGUMENT"]',),
        'The default is `["/bin/sh", "-c"]`. It counts for RUN, CMD and ENTRYPOINT below, and is kept in the image.',
        {},
    ),
    "healthcheck": Page(
        "Says how to find out whether a container still works.",
        ("HEALTHCHECK [FLAGS] CMD COMMAND", "HEALTHCHECK NONE"),
        "The command exits with 0 if all is well and with 1 if not. NONE drops the check of the base image.",
        {
            "interval": Option("DURATION", "The time between two checks (default: 30s)."),
            "timeout": Option("DURATION", "How long a check may take (default: 30s)."),
            "start-period": Option("DURATION", "How long failures do not count after the start (default: 0s)."),
            "start-interval": Option("DURATION", "The time between checks during the start period (default: 5s)."),
            "retries": Option("COUNT", "How many failures in a row make it unhealthy (default: 3)."),
        },
    ),
    "stopsignal": Page(
        "Sets the signal that asks a container to end.",
        ("STOPSIGNAL SIGNAL",),
        "A name such as `SIGTERM`, which is the default, or a number.",
        {},
    ),
    "onbuild": Page(
        "Stores an instruction that runs in builds based on this image.",
        ("ONBUILD INSTRUCTION",),
        "It runs right after their FROM. FROM, MAINTAINER and ONBUILD itself cannot be stored.",
        {},
    ),
    "maintainer": Page(
        "Names the author. Deprecated.",
        ("MAINTAINER NAME",),
        "Write `LABEL org.opencontainers.image.authors=NAME` instead.",
        {},
    ),
}

MOUNT_TYPES: Mapping[str, str] = {
    "bind": "Files of the context, or of what `from` names, read-only unless `rw`; what is written is dropped.",
    "cache": "A directory that outlives the build, for caches of compilers and package managers.",
    "secret": "The value of `--secret`, as a file or an environment variable; it never gets into the image.",
    "ssh": "The socket of the key agent that `--ssh` names.",
    "tmpfs": "An empty file system in memory.",
}

MOUNT_KEYS: Mapping[str, Option] = {
    "type": Option("TYPE", "What is mounted (default: bind).", tuple(MOUNT_TYPES)),
    "target": Option("PATH", "Where it is mounted."),
    "source": Option("PATH", "What is mounted: a path in `from` or the context, or the secret's id."),
    "from": Option("STAGE", "The stage, image or named context that is mounted, or that a cache begins with."),
    "id": Option("ID", "Which cache, secret or key agent; a cache's default is its target."),
    "readonly": Option("", "Refuse writing.", _BOOLEAN),
    "readwrite": Option("", "Allow writing.", _BOOLEAN),
    "sharing": Option("MODE", "What builds that run side by side do with one cache.", ("shared", "private", "locked")),
    "required": Option("", "Fail where the secret or key agent was not given.", _BOOLEAN),
    "mode": Option("MODE", "The permissions, in octal."),
    "uid": Option("UID", "The owner's number (default: 0)."),
    "gid": Option("GID", "The group's number (default: 0)."),
    "size": Option("BYTES", "The most that a tmpfs holds, such as `64m`."),
    "env": Option("NAME", "Give the secret in this environment variable."),
}
"""The keys of `--mount` by their main names."""

MOUNT_TYPE_KEYS: Mapping[str, tuple[str, ...]] = {
    "bind": ("target", "source", "from", "readwrite"),
    "cache": ("target", "id", "sharing", "from", "source", "mode", "uid", "gid", "readonly"),
    "secret": ("id", "target", "env", "required", "mode", "uid", "gid"),
    "ssh": ("id", "target", "required", "mode", "uid", "gid"),
    "tmpfs": ("target", "size"),
}
"""The keys worth offering for each type of mount, the likeliest first."""

AUTOMATIC_ARGS: Mapping[str, str] = {
    "BUILDPLATFORM": "The platform of the machine that builds, such as `linux/amd64`.",
    "BUILDOS": "The operating system of BUILDPLATFORM.",
    "BUILDOSVERSION": "The version of the operating system of BUILDPLATFORM; empty for Linux.",
    "BUILDARCH": "The architecture of BUILDPLATFORM.",
    "BUILDVARIANT": "The variant of the architecture of BUILDPLATFORM, such as `v7`; mostly empty.",
    "TARGETPLATFORM": "The platform that is built for, such as `linux/arm64`.",
    "TARGETOS": "The operating system of TARGETPLATFORM.",
    "TARGETOSVERSION": "The version of the operating system of TARGETPLATFORM; empty for Linux.",
    "TARGETARCH": "The architecture of TARGETPLATFORM.",
    "TARGETVARIANT": "The variant of the architecture of TARGETPLATFORM, such as `v7`; mostly empty.",
    "TARGETSTAGE": "The name of the stage that is built.",
}
"""Arguments that every build has: known in FROM, and in a stage that declares them with `ARG NAME`."""

DIRECTIVES: Mapping[str, Option] = {
    "syntax": Option("IMAGE", "The frontend that BuildKit loads to read the file.", ("docker/dockerfile:1",)),
    "escape": Option(
        "CHARACTER", "The character that continues lines and escapes: backslash or backtick.", ("\\", "`")
    ),
    "check": Option("skip=RULE,…", "Which rules `check` looks at.", ("skip=", "error=true", "experimental=all")),
}
"""The directives that may stand in comments at the top of a file."""

SIGNALS = ("SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGRTMIN+3")
"""The signals that programs are commonly asked to end with."""
