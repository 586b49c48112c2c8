"""How long Dockerfiles take to be read: `python -m bench.parse`. Each is read in a fresh process, after the import."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench import machine, page

_PROGRAM = """
import json, sys, time
from grammar import parse, resolve
from grammar.format import format_ast
data = open(sys.argv[1], "rb").read()
clock = time.perf_counter
start = clock()
ast = parse(data)
parsed = clock()
resolve(ast)
resolved = clock()
format_ast(ast)
print(json.dumps({"parse": parsed - start, "resolve": resolved - parsed, "format": clock() - resolved}))
"""
_STAGE = """\
FROM python:3.12-slim AS build{n}
ARG VERSION=1.2.{n}
ENV PIP_NO_CACHE_DIR=1 \\
    PYTHONUNBUFFERED="1"
LABEL org.opencontainers.image.title="app" org.opencontainers.image.version=$VERSION
WORKDIR /src
# what the build needs, and nothing else
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \\
    apt-get update \\
    && apt-get install -y --no-install-recommends \\
        build-essential \\
        libpq-dev \\
    && rm -rf /var/lib/apt/lists/*
COPY --chown=1000:1000 pyproject.toml README.md ./
RUN pip install --prefix=/install .
COPY --chmod=755 src/ ./src/
RUN <<EOF
set -e
python -m compileall src
test -n "$VERSION"
EOF

FROM python:3.12-slim AS app{n}
COPY --from=build{n} /install /usr/local
USER 1000:1000
EXPOSE 8000/tcp
HEALTHCHECK --interval=30s --timeout=3s CMD ["python", "-m", "app.health"]
ENTRYPOINT ["python", "-m", "app"]
CMD ["--port", "8000"]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A Dockerfile to read; `budget` is what parsing may take, in seconds."""

    name: str
    text: str
    budget: float

    @property
    def lines(self) -> int:
        """How many lines it has."""
        return self.text.count("\n")


def samples(lines: int = 5000) -> Sequence[Sample]:
    """An ordinary one, of two stages, and one of `lines` lines or a few more: the same stages again and again."""
    ordinary = _STAGE.format(n=0)
    stages = [_STAGE.format(n=number) for number in range(-(-lines // (ordinary.count("\n") + 1)))]
    long = "\n".join(stages)
    return (
        Sample(name="ordinary, two stages", text=ordinary, budget=0.010),
        Sample(name="long, the same again and again", text=long, budget=0.25),
    )


def read(sample: Sample, repeat: int) -> dict[str, Any]:
    """Read a Dockerfile in `repeat` fresh processes; medians in seconds by what was done. CalledProcessError."""
    with tempfile.NamedTemporaryFile("w", suffix=".Dockerfile") as file:
        file.write(sample.text)
        file.flush()
        root = str(Path(__file__).resolve().parent.parent)
        environ = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        times = [
            json.loads(
                subprocess.run(
                    [sys.executable, "-c", _PROGRAM, file.name],
                    env={**environ, "PYTHONPATH": root},
                    capture_output=True,
                    check=True,
                ).stdout
            )
            for _ in range(repeat + 1)
        ][1:]
    medians = {name: median(one[name] for one in times) for name in ("parse", "resolve", "format")}
    return {"name": sample.name, "lines": sample.lines, "budget": sample.budget, **medians}


def main(words: Sequence[str]) -> int:
    """Read the samples; the exit status: 1 if a budget is not met."""
    parser = argparse.ArgumentParser(prog="python -m bench.parse", description="Measure how long Dockerfiles take.")
    parser.add_argument("--repeat", type=int, default=9, metavar="N", help="runs, of which the median counts [9]")
    parser.add_argument("--json", metavar="FILE", help="write the figures to a file")
    parser.add_argument("--write", action="store_true", help="bring docs/benchmarks.md up to date")
    arguments = parser.parse_args(words)
    rows = [read(sample, arguments.repeat) for sample in samples()]
    document = {"machine": machine.describe(), "repeat": arguments.repeat, "rows": rows}
    for row in rows:
        print(_line(row))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(document, indent=1) + "\n")
    if arguments.write:
        page.save("parse", document)
    return 1 if any(row["parse"] > row["budget"] for row in rows) else 0


def _line(row: Mapping[str, Any]) -> str:
    times = ", ".join(f"{name} {row[name] * 1000:.1f} ms" for name in ("parse", "resolve", "format"))
    verdict = "met" if row["parse"] <= row["budget"] else "NOT MET"
    return f"{row['name']}, {row['lines']:,} lines: {times} (budget of parse {row['budget'] * 1000:.0f} ms: {verdict})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
