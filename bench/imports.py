"""How long each command imports, and what is dear in it: `python -m bench.imports` prints the table, `--write` puts it
into docs/performance.md. Figures are of `python -X importtime`, the least of several runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
BEGIN, END = "<!-- imports: made by `python -m bench.imports --write` -->", "<!-- end of imports -->"
DOCKERFILE = Path(__file__).parent.parent / "examples" / "hello" / "Dockerfile"
RUNS = 7

COMMANDS: dict[str, tuple[str, ...]] = {
    "`--version`": ("--version",),
    "`--help`": ("--help",),
    "`images`": ("images",),
    "`ps`": ("ps",),
    "`fmt`": ("fmt", "--check", str(DOCKERFILE)),
    "`check`": ("check", str(DOCKERFILE.parent)),
    "`build`, cached": ("build", "-q", "."),
    "`run`, host network": ("run", "--rm", "--network", "host", "imports:1", "/busybox", "true"),
    "`run`, bridge": ("run", "--rm", "imports:1", "/busybox", "true"),
}

_LINE = re.compile(rb"import time:\s*(\d+) \|\s*(\d+) \|( *)(\S+)")


def measure(words: tuple[str, ...], root: Path, cwd: Path) -> tuple[float, list[tuple[str, float]]]:
    """Milliseconds of all imports of a call, and the packages that take most of them."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    best: dict[str, float] = {}
    for _ in range(RUNS):
        argv = [sys.executable, "-X", "importtime", "-m", "builder", "--root", str(root), *words]
        if words == ("--version",):
            argv[5:7] = []
        done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, check=False)
        found: dict[str, float] = {}
        for line in _LINE.finditer(done.stderr):
            package = line[4].decode().partition(".")[0]
            found[package] = found.get(package, 0) + int(line[1]) / 1000
        if not best or sum(found.values()) < sum(best.values()):
            best = found
    dear = sorted(best.items(), key=lambda pair: -pair[1])
    return sum(best.values()), dear[:6]


def table() -> str:
    """The table in Markdown."""
    rows = ["| command | imports | the dearest packages |", "|---|---|---|"]
    with tempfile.TemporaryDirectory() as directory:
        root, context = Path(directory) / "store", Path(directory) / "context"
        context.mkdir()
        (context / "Dockerfile").write_text("FROM scratch\nCOPY busybox /\n")
        (context / "busybox").write_bytes(Path("/bin/busybox").read_bytes())
        (context / "busybox").chmod(0o755)
        build = [sys.executable, "-m", "builder", "--root", str(root), "build", "-q", "-t", "imports:1", str(context)]
        subprocess.run(build, check=True, capture_output=True)
        for name, words in COMMANDS.items():
            total, dear = measure(words, root, context)
            parts = ", ".join(f"{package} {time:.1f}" for package, time in dear)
            rows.append(f"| {name} | {total:.0f} ms | {parts} |")
    return "\n".join(rows)


def main() -> None:
    """Print the table, or write it into the page."""
    text = table()
    if "--write" not in sys.argv[1:]:
        print(text)
        return
    page = PAGE.read_text()
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    PAGE.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}")


if __name__ == "__main__":
    main()
