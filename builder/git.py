"""The host's `git` program, run so that neither the user's configuration nor a repository's has a say.

It knows how the program is called and what its failures mean, and nothing of what it is called for. No hook runs: there
are no templates and no hook directory. git(1), git-config(1), GIT_ALLOW_PROTOCOL and GIT_CONFIG_COUNT.
"""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from builder.errors import BuildError, Canceled

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NETWORK = "http:https:git:ssh"
_SILENCE_SECONDS = 60
_CONNECT_SECONDS = 30
_CONFIG = (
    ("core.hooksPath", "/dev/null"),
    ("core.attributesFile", "/dev/null"),
    ("core.excludesFile", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.untrackedCache", "false"),
    ("core.logAllRefUpdates", "false"),
    ("credential.helper", ""),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("init.defaultBranch", "master"),
    ("advice.detachedHead", "false"),
    ("protocol.version", "2"),
    # Names that other systems take for .git are refused wherever the build runs.
    ("core.protectHFS", "true"),
    ("core.protectNTFS", "true"),
    ("http.lowSpeedLimit", "1"),
    ("http.lowSpeedTime", str(_SILENCE_SECONDS)),
)
# For github.com one token is good for all repositories, as it is for BuildKit: submodules are most often there too.
_SHARED_SCOPES = ("https://github.com/", "https://www.github.com/")
_PRIVATE_HINT = "give a token as a secret: --secret id=GIT_AUTH_TOKEN,env=GIT_AUTH_TOKEN"
_HINTS = (
    (("Authentication failed", "could not read Username", "could not read Password", "403", "401"), _PRIVATE_HINT),
    (("Permission denied (publickey",), "add the key to the agent (ssh-add) and pass --ssh default"),
    (("Host key verification failed",), "the host's key is not the one in known_hosts: find out why"),
    (
        ("Could not resolve", "unable to look up", "ailed to connect", "unable to connect", "refused", "timed out",
         "Couldn't connect", "unreachable"),
        "check the URL, the network and the proxy",
    ),
    (
        ("not found", "does not exist", "not appear to be a git repository", "not exported", "access denied"),
        f"check the URL; for a private repository, {_PRIVATE_HINT}",
    ),
)  # fmt: skip


class GitFailed(BuildError):
    """git ended with an error; the message is what it said, `said` all of its standard error."""

    def __init__(self, message: str, *, hint: str = "", said: str = "") -> None:
        super().__init__(message, hint=hint)
        self.said = said


class Git:
    """Runs git for one build; safe to use from several threads."""

    def __init__(self, *, environ: Mapping[str, str], secrets: Mapping[str, bytes], agents: Mapping[str, Path]) -> None:
        """`environ` is the host's environment, of which git gets PATH, proxies and certificate authorities.

        `secrets` may hold GIT_AUTH_HEADER or GIT_AUTH_TOKEN, alone or with `.<host>` (or `_<host>`) behind it;
        `agents` the socket of the key agent `default`.
        """
        self._environ = environ
        self._secrets = secrets
        self._agents = agents
        self._canceled = threading.Event()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()

    @property
    def canceled(self) -> bool:
        """Whether `cancel` was called."""
        return self._canceled.is_set()

    def run(
        self,
        *words: str,
        git_dir: Path | None = None,
        work_tree: Path | None = None,
        remote: str = "",
        scratch: Path | None = None,
        local: bool = False,
    ) -> bytes:
        """Run `git WORDS` and return its standard output; GitFailed, BuildError if there is no git, Canceled.

        `git_dir` and `work_tree` are what the options of that name are. Only for a `remote`, as `address` returns them,
        is there a network, with the credentials for it; `scratch` is a directory for ssh's new known hosts. `local`
        allows other repositories of this machine.
        """
        env = self._env(remote, scratch, local=local)
        if git_dir is not None:
            env["GIT_DIR"] = str(git_dir)
        if work_tree is not None:
            env["GIT_WORK_TREE"] = str(work_tree)
        process = self._start(words, env, work_tree or git_dir or Path("/"))
        try:
            out, err = process.communicate()
        except BaseException:
            _kill(process)
            process.wait()
            raise
        finally:
            with self._lock:
                self._running.discard(process)
        if self._canceled.is_set():
            raise Canceled("canceled")
        if process.returncode:
            raise _failed(words, process.returncode, err.decode("utf-8", "replace"))
        return out

    def cancel(self) -> None:
        """End what runs; every `run` ends soon, with Canceled."""
        self._canceled.set()
        with self._lock:
            for process in self._running:
                _kill(process)

    def _start(self, words: Sequence[str], env: dict[str, str], place: Path) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._canceled.is_set():
                raise Canceled("canceled")
            try:
                # In a session of its own it has no terminal to ask on, and all it starts can be ended together.
                process = subprocess.Popen(
                    ["git", *words],
                    env=env,
                    cwd=place,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                    umask=0o022,
                )
            except OSError as error:
                missing = isinstance(error, FileNotFoundError)
                message = "git is not installed" if missing else f"git cannot be run: {error.strerror}"
                hint = "git repositories are fetched with the host's git: apt-get install git"
                raise BuildError(message, hint=hint) from error
            self._running.add(process)
        return process

    def _env(self, remote: str, scratch: Path | None, *, local: bool) -> dict[str, str]:
        """The whole environment of a call."""
        host = self._environ
        env = {name: value for name, value in host.items() if name.lower().endswith("_proxy")}
        env |= {
            "PATH": host.get("PATH", _PATH),
            "HOME": "/nonexistent",
            "LC_ALL": "C",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "true",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_ALLOW_PROTOCOL": _NETWORK if remote else "file" if local else "none",
        }
        config = list(_CONFIG)
        if authorities := host.get("SSL_CERT_FILE"):
            config.append(("http.sslCAInfo", authorities))
        if remote:
            config += self._credentials(remote)
            env |= self._ssh(remote, scratch)
        # In the environment, where other users do not see it, and from where git passes it on to submodules.
        env["GIT_CONFIG_COUNT"] = str(len(config))
        for at, (key, value) in enumerate(config):
            env[f"GIT_CONFIG_KEY_{at}"], env[f"GIT_CONFIG_VALUE_{at}"] = key, value
        return env

    def _credentials(self, remote: str) -> list[tuple[str, str]]:
        """The header for `remote` as configuration: of a secret, or of the URL itself."""
        parts = urlsplit(remote) if remote.startswith(("http://", "https://")) else None
        if parts is None:
            return []
        scope = next((one for one in _SHARED_SCOPES if remote.startswith(one)), address(remote))
        header = self._header(parts.netloc.rpartition("@")[2])
        if not header and parts.username is not None:
            header = _basic(unquote(parts.username), unquote(parts.password or ""))
            scope = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/"
        return [(f"http.{scope}.extraHeader", f"Authorization: {header}")] if header else []

    def _header(self, host: str) -> str:
        for suffix in (f".{host}", f"_{host}", ""):
            for kind in ("HEADER", "TOKEN"):
                name = f"GIT_AUTH_{kind}{suffix}"
                secret = self._secrets.get(name)
                if secret is None:
                    continue
                value = secret.decode("latin-1").strip()
                if not value.isprintable():
                    raise BuildError(f"secret {name} is no header: it has control characters", hint="give one line")
                return value if kind == "HEADER" else _basic("x-access-token", value)
        return ""

    def _ssh(self, remote: str, scratch: Path | None) -> dict[str, str]:
        """How ssh is called, for `remote` or its submodules: with the agent's keys and no others.

        Hosts that are known have to have the key that is known; others are taken as they come.
        """
        agent = self._agents.get("default")
        if agent is None:
            message, hint = 'no SSH key "default" forwarded from the client', "start an agent and pass --ssh default"
            if is_ssh(remote):
                raise BuildError(message, hint=hint)
            return {"GIT_SSH_COMMAND": f"echo 'ssh: {message}: {hint}' >&2; false"}
        home = self._environ.get("HOME", "")
        known = ["/etc/ssh/ssh_known_hosts"]
        if home.startswith("/") and not set(home) & set(" \t\"'"):
            known.append(f"{home}/.ssh/known_hosts")
        own = scratch / "known_hosts" if scratch is not None else Path("/dev/null")
        options = (
            "BatchMode=yes",
            "IdentityFile=none",
            f"ConnectTimeout={_CONNECT_SECONDS}",
            "StrictHostKeyChecking=accept-new",
            f"UserKnownHostsFile={own}",
            f"GlobalKnownHostsFile={' '.join(known)}",
        )
        words = " ".join(f"-o '{option}'" for option in options)
        return {"GIT_SSH_COMMAND": f"ssh -F /dev/null {words}", "SSH_AUTH_SOCK": str(agent)}


def address(remote: str) -> str:
    """Return a repository's URL as git is given it: without the credentials of http(s)."""
    if not remote.startswith(("http://", "https://")):
        return remote
    parts = urlsplit(remote)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def is_ssh(remote: str) -> bool:
    """Say whether a repository is reached through ssh."""
    return remote.startswith("ssh://") or ("://" not in remote and "@" in remote)


def _basic(user: str, password: str) -> str:
    return "basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def _failed(words: Sequence[str], status: int, said: str) -> GitFailed:
    """Say in one line what git said in several."""
    lines = [line.strip() for line in said.splitlines()]
    told = [
        line.partition(": ")[2]
        for line in lines
        if line.startswith(("fatal: ", "error: ", "remote: ", "ssh: ")) and line.partition(": ")[2]
    ]
    told = told or [line for line in lines if line][-3:] or [f"git {words[0]} ended with status {status}"]
    hint = next((hint for signs, hint in _HINTS if any(sign in said for sign in signs)), "")
    return GitFailed("; ".join(dict.fromkeys(told)), hint=hint, said=said)
