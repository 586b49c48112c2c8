"""What commands install, and which files they need for it. Knows package managers, and no rule."""

from __future__ import annotations

import re
from typing import NamedTuple

from grammar.lint.shell import Command, Script

_SYSTEM = {
    "apt": ("install",),
    "apt-get": ("install",),
    "aptitude": ("install",),
    "apk": ("add",),
    "dnf": ("install",),
    "microdnf": ("install",),
    "pacman": ("-S", "-Sy", "-Syu"),
    "tdnf": ("install",),
    "yum": ("install",),
    "zypper": ("install", "in"),
}
_LOCAL_PACKAGE = (".deb", ".rpm", ".apk", ".whl", ".tgz", ".tar.gz", ".zip", ".gem")
_VALUED = {
    "apt": ("-t", "-o", "-c", "--target-release", "--option", "--config-file"),
    "apk": ("-t", "-p", "-X", "--virtual", "--repository", "--root", "--arch", "--keys-dir"),
    "dnf": ("-c", "--repo", "--enablerepo", "--disablerepo", "--setopt", "--installroot", "--releasever"),
    "pip": (
        "-c", "-e", "-i", "-r", "-t", "-f", "--abi", "--cache-dir", "--constraint", "--editable", "--extra-index-url",
        "--find-links", "--implementation", "--index-url", "--no-binary", "--only-binary", "--platform", "--prefix",
        "--progress-bar", "--proxy", "--python-version", "--requirement", "--retries", "--root", "--src", "--target",
        "--timeout", "--trusted-host", "--upgrade-strategy", "--python",
    ),
    "npm": ("-C", "--prefix", "--registry", "--cache", "--loglevel", "--omit", "--include", "-w", "--workspace"),
    "gem": ("-v", "--version", "-i", "--install-dir", "-n", "--bindir", "-s", "--source", "-P", "--platform"),
}  # fmt: skip
_FAMILIES = {
    **dict.fromkeys(("apt", "apt-get", "aptitude"), "apt"),
    **dict.fromkeys(("dnf", "yum", "microdnf", "tdnf"), "dnf"),
    "apk": "apk",
}

_MANIFESTS = {
    "npm": ("package.json", "package-lock.json"),
    "yarn": ("package.json", "yarn.lock"),
    "pnpm": ("package.json", "pnpm-lock.yaml"),
    "go": ("go.mod", "go.sum"),
    "bundle": ("Gemfile", "Gemfile.lock"),
    "cargo": ("Cargo.toml", "Cargo.lock"),
    "composer": ("composer.json", "composer.lock"),
    "poetry": ("pyproject.toml", "poetry.lock"),
    "uv": ("pyproject.toml", "uv.lock"),
    "pipenv": ("Pipfile", "Pipfile.lock"),
    "mvn": ("pom.xml",),
}
_FETCHES = {
    "bundle": (("install",),),
    "cargo": (("fetch",),),
    "go": (("mod", "download"),),
    "npm": (("ci",), ("install",), ("i",), ("clean-install",)),
    "pipenv": (("install",), ("sync",)),
    "pnpm": (("install",), ("i",), ("fetch",)),
    "mvn": (("dependency:go-offline",), ("dependency:resolve",)),
}
# Of these the project itself is installed too, unless they are told not to.
_PROJECT_LEFT_OUT = {
    "composer": ("install", ("--no-scripts", "--no-autoloader")),
    "poetry": ("install", ("--no-root",)),
    "uv": ("sync", ("--no-install-project",)),
}
_HARMLESS = frozenset(
    {
        ":", "addgroup", "adduser", "cd", "curl", "date", "echo", "export", "gpg", "groupadd", "locale-gen", "mkdir",
        "printf", "rm", "set", "sleep", "test", "true", "umask", "unset", "update-alternatives", "useradd", "usermod",
        "wget", "[",
    }
)  # fmt: skip
_UPKEEP = {
    "apk": ("update", "upgrade", "del", "cache"),
    "apt": ("update", "upgrade", "dist-upgrade", "full-upgrade", "clean", "autoclean", "autoremove", "purge", "remove",
            "distclean"),
    "dnf": ("update", "upgrade", "clean", "makecache", "remove", "autoremove", "config-manager"),
    "bundle": ("config",),
    "npm": ("cache", "config", "set"),
    "yarn": ("cache", "config"),
    "pnpm": ("config", "store"),
    "pip": ("cache", "config", "--version", "-V"),
    "corepack": ("enable",),
    "go": ("env", "version"),
}  # fmt: skip


class Install(NamedTuple):
    """A command that fetches packages: the manager's family, the packages named, and the files needed for it.

    Files are relative to the working directory. Packages are as written, options left out.
    """

    family: str
    packages: tuple[str, ...]
    files: tuple[str, ...]


def installs(command: Command) -> Install | None:
    """Return what a command installs; None if it installs nothing, or what cannot be told."""
    name, words = _program(command)
    if name in _SYSTEM:
        return _system(name, words)
    match name:
        case "pip":
            return _pip(words)
        case "npm" | "pnpm" | "yarn":
            return _node(name, words)
        case "gem" | "cargo" | "go" if words[:1] == ("install",):
            return _by_name(name, words[1:])
    for verbs in _FETCHES.get(name, ()):
        if words[: len(verbs)] == verbs:
            return Install(name, (), _MANIFESTS[name])
    if name in _PROJECT_LEFT_OUT:
        verb, wanted = _PROJECT_LEFT_OUT[name]
        if words[:1] == (verb,) and set(wanted) <= set(words):
            return Install(name, (), _MANIFESTS[name])
    return None


def is_harmless(command: Command) -> bool:
    """Say whether a command takes nothing from files that were copied, as far as its name and first word tell."""
    name, words = _program(command)
    if name in ("sh", "bash"):
        return words[:1] in ((), ("-",), ("-s",))  # fed by a pipe
    if name == "rm":
        return all(word.startswith(("/", "-", "~")) for word in words)
    if name in ("curl", "wget"):
        return not any(word.startswith("@") or "=@" in word or word in ("-T", "-K", "-i") for word in words)
    if name in _HARMLESS:
        return True
    verbs = _UPKEEP.get(_FAMILIES.get(name, name), ())
    verb = next((word for word in words if not word.startswith("-")), words[0] if words else "")
    return verb in verbs


def needed_files(script: Script) -> tuple[str, ...] | None:
    """Return the files that a script needs if all it does is to install packages; None if it does more, or nothing."""
    if not script.plain:
        return None
    files: list[str] = []
    found = False
    for command in script.commands:
        install = installs(command)
        if install is not None:
            found = True
            files += install.files
        elif not is_harmless(command):
            return None
    return tuple(dict.fromkeys(files)) if found else None


def _program(command: Command) -> tuple[str, tuple[str, ...]]:
    """The package manager's name, whatever it was called by, and its words."""
    name, words = command.name, command.words[1:]
    if re.fullmatch(r"python[\d.]*", name) and words[:2] == ("-m", "pip"):
        return "pip", words[2:]
    if name == "uv" and words[:1] == ("pip",):
        return "pip", words[1:]
    if re.fullmatch(r"pip[\d.]*", name):
        return "pip", words
    if name in ("mvnw",):
        return "mvn", words
    return name, words


def _arguments(family: str, words: tuple[str, ...]) -> tuple[list[str], list[tuple[str, str]]]:
    """Sort words into arguments and (option, value) pairs; an option without a value has an empty one."""
    arguments: list[str] = []
    options: list[tuple[str, str]] = []
    valued = _VALUED.get(family, ())
    rest = iter(words)
    for word in rest:
        if not word.startswith("-") or word == "-":
            arguments.append(word)
            continue
        name, equals, value = word.partition("=")
        if name in valued and not equals:
            value = next(rest, "")
        options.append((name, value))
    return arguments, options


def _is_local(word: str) -> bool:
    return word.startswith((".", "/", "~", "file:")) or word.endswith(_LOCAL_PACKAGE) or "$(" in word or "*" in word


def _system(name: str, words: tuple[str, ...]) -> Install | None:
    family = _FAMILIES.get(name, name)
    arguments, _ = _arguments(family, words)
    if name == "pacman":
        packages = arguments if any(word in _SYSTEM[name] for word in words) else None
    else:
        packages = arguments[1:] if arguments[:1] and arguments[0] in _SYSTEM[name] else None
    if not packages or any(_is_local(word) for word in packages):
        return None
    return Install(family, tuple(packages), ())


def _pip(words: tuple[str, ...]) -> Install | None:
    arguments, options = _arguments("pip", words)
    if arguments[:1] != ["install"]:
        return None
    files = [value for name, value in options if name in ("-r", "--requirement", "-c", "--constraint")]
    if any(name in ("-e", "--editable", "-f", "--find-links") for name, _ in options):
        return None
    if any(_is_local(word) or ("/" in word and "://" not in word) for word in arguments[1:]):
        return None
    if any("://" in file for file in files):
        files = [file for file in files if "://" not in file]
    return Install("pip", tuple(arguments[1:]), tuple(files)) if files or arguments[1:] else None


def _node(name: str, words: tuple[str, ...]) -> Install | None:
    arguments, options = _arguments("npm", words)
    everywhere = any(option in ("-g", "--global", "--location") for option, _ in options) or arguments[:1] == ["global"]
    if any(option in ("-C", "--prefix") for option, _ in options) and not everywhere:
        return None
    if arguments[:1] == ["global"]:
        arguments = arguments[1:]
    if name == "yarn" and not arguments and not {"--version", "-v"} & {option for option, _ in options}:
        return Install(name, (), _MANIFESTS[name])
    if arguments[:1] not in (["ci"], ["install"], ["i"], ["add"], ["clean-install"], ["fetch"]):
        return None
    packages = arguments[1:]
    if any(_is_local(word) for word in packages):
        return None
    return Install(name, tuple(packages), () if everywhere and packages else _MANIFESTS[name])


def _by_name(name: str, words: tuple[str, ...]) -> Install | None:
    """`install` of packages by their names, which needs no file."""
    arguments, options = _arguments(name, words)
    if not arguments or any(_is_local(word) for word in arguments):
        return None
    if name == "go" and not all("@" in word for word in arguments):
        return None
    if name == "cargo" and any(option in ("--path",) for option, _ in options):
        return None
    return Install(name, tuple(arguments), ())
