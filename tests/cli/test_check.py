"""`pybuild check`: what it prints in each form, its exit status, and what it asks of a build."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
import tarfile

import pytest

from tests.building import REPOSITORY, Project

LEGACY = '"ENV key=value" should be used instead of legacy "ENV key value" format'


@pytest.fixture
def flawed(project: Project) -> Project:
    """A project whose Dockerfile breaks one rule in its second line."""
    project.dockerfile("FROM scratch", "ENV a b")
    return project


def test_clean(project: Project) -> None:
    """A tidy file is said to be one."""
    project.dockerfile("FROM scratch", "ENV a=b")

    assert b"Check complete, no warnings found.\n" == project("check").out


def test_text(flawed: Project) -> None:
    """A warning names its rule, the rule's page, the message and the line; the status is 1."""
    lines = flawed("check", ".", status=1).out.decode().splitlines()

    assert "Check complete, 1 warning has been found!" == lines[0]
    assert (
        "WARNING: LegacyKeyValueFormat - https://docs.docker.com/go/dockerfile/rule/legacy-key-value-format/"
        == lines[2]
    )
    assert LEGACY == lines[3]
    assert "   2 | >>> ENV a b" in lines


def test_json(flawed: Project) -> None:
    """The JSON is that of BuildKit's lint request, and carries the file."""
    answer = json.loads(flawed("check", "--format", "json", status=1).out)

    assert [
        {
            "ruleName": "LegacyKeyValueFormat",
            "description": "Legacy key/value format with whitespace separator should not be used",
            "url": "https://docs.docker.com/go/dockerfile/rule/legacy-key-value-format/",
            "detail": LEGACY,
            "location": {"ranges": [{"start": {"line": 2, "character": 0}, "end": {"line": 2, "character": 7}}]},
        }
    ] == answer["warnings"]
    assert b"FROM scratch\nENV a b\n" == base64.b64decode(answer["sources"][0]["data"])


def test_json_of_an_error(project: Project) -> None:
    """What keeps a file from being planned is told beside the warnings, and on stderr with its place."""
    project.dockerfile("FROM scratch AS Upper", "EXPOSE much")
    done = project("check", "--format", "json", status=1)
    answer = json.loads(done.out)

    assert ["StageNameCasing"] == [one["ruleName"] for one in answer["warnings"]]
    assert "invalid containerPort: much" == answer["buildError"]["message"]
    assert 2 == answer["buildError"]["location"]["ranges"][0]["start"]["line"]
    assert done.err.startswith("Dockerfile:2:8: error[expose]: ")


def test_github(flawed: Project) -> None:
    """A line of workflow commands for each warning."""
    expected = f"::warning file=Dockerfile,line=2,endLine=2,title=LegacyKeyValueFormat::{LEGACY}\n"

    assert expected == flawed("check", "--format", "github", status=1).out.decode()


def test_sarif(flawed: Project) -> None:
    """SARIF has the rule once and the result at its place."""
    run = json.loads(flawed("check", "--format", "sarif", status=1).out)["runs"][0]

    assert ["LegacyKeyValueFormat"] == [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    place = run["results"][0]["locations"][0]["physicalLocation"]
    assert {"startLine": 2, "startColumn": 1, "endLine": 2, "endColumn": 8} == place["region"]


def test_stdin(project: Project) -> None:
    """A Dockerfile on stdin needs no context."""
    assert LEGACY.encode() in project("check", "-", stdin=b"FROM scratch\nENV a b\n", status=1).out


def test_tar_on_stdin(project: Project) -> None:
    """A context on stdin is looked at as well, and nothing of it stays; its ignore file hides nothing."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, text in (("Dockerfile", b"FROM scratch\nMAINTAINER a\nCOPY kept /\n"), (".dockerignore", b"kept\n")):
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
    out = project("check", "--format", "github", "-", stdin=packed.getvalue(), status=1).out

    assert [b"title=MaintainerDeprecated"] == re.findall(rb"title=\w+", out)
    assert not (project.root / "stdin").exists()


def test_unknown_base_hides_no_other_rule(project: Project) -> None:
    """A base image that is not in the store is not fetched: its variables are unknown, all else is looked at."""
    project.dockerfile("FROM nowhere.invalid/app", "WORKDIR $APP_HOME/x", "ENV a b")

    out = project("check", "--format", "github", status=1).out
    assert b"LegacyKeyValueFormat" in out
    assert b"UndefinedVar" not in out


def test_malformed_option(project: Project) -> None:
    """A check directive that means nothing is refused, by a check and by a build."""
    project.dockerfile("# check=skipp=all", "FROM scratch")

    assert 'error: failed to parse check options: invalid check option "skipp"' in project("check", status=1).err
    assert 'error: failed to parse check options: invalid check option "skipp"' == project.fails(".")[0]


def test_build_refuses_what_the_file_refuses(project: Project) -> None:
    """With error=true a build that breaks a rule fails, says which and shows the warnings."""
    project.dockerfile("# check=error=true", "FROM scratch AS Upper", "ENV a b")
    err = project.build(".", status=1).err

    assert "error: lint violation found for rules: StageNameCasing, LegacyKeyValueFormat" in err
    assert ' - LegacyKeyValueFormat: "ENV key=value" should be used' in err
    project.build("--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=all;error=true", ".")


def test_build_check(flawed: Project) -> None:
    """`build --check` says what `check` says, builds nothing and has the status of a check."""
    before = flawed.images()

    assert flawed("check", status=1).out == flawed("build", "--check", "-t", "app:1", ".", status=1).out
    assert before == flawed.images()
    assert (
        "--check builds nothing, so --output has nothing to write"
        in flawed("build", "--check", "-o", "type=oci,dest=x", status=2).err
    )


def test_build_check_takes_the_target(project: Project) -> None:
    """With --target only what it needs is looked at."""
    project.dockerfile("FROM scratch AS one", "ENV a=b", "FROM scratch AS two", "ENV c d")

    assert b"no warnings" in project("build", "--check", "--target", "one", ".").out
    assert b"LegacyKeyValueFormat" in project("build", "--check", ".", status=1).out


def test_a_build_warns(project: Project) -> None:
    """A build ends with what the reference's rules say, however much of it is cached, and quiet builds do not."""
    project.dockerfile("FROM scratch AS Upper", "ENV a b", "FROM scratch AS orphan", "FROM scratch")
    expected = (
        " 1 warning found (use pybuild check to expand):\n - StageNameCasing: Stage name 'Upper' should be lowercase"
        " (line 1)\n"
    )

    assert project.build("--progress", "plain", ".").err.endswith(expected)
    assert project.build("--progress", "plain", ".").err.endswith(expected)
    assert "" == project.build("-q", ".").err
    assert "2 warnings found" in project.build("--progress", "plain", "--target", "upper", ".").err
    project.build("--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=all", ".")
    assert "warning" not in project.build("--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=all", ".").err


def test_a_build_warns_for_programs(project: Project) -> None:
    """Raw JSON has warnings in the shape of BuildKit's: the rule, where it is documented, and the place."""
    project.dockerfile("FROM scratch", "ENV a b")
    lines = project.build("--progress", "rawjson", ".").err.splitlines()
    (warning,) = (one for line in lines for one in json.loads(line).get("warnings", ()))

    assert f"LegacyKeyValueFormat: {LEGACY} (line 2)" == base64.b64decode(warning["short"]).decode()
    assert warning["url"].endswith("/legacy-key-value-format/")
    assert [b"Legacy key/value format with whitespace separator should not be used"] == [
        base64.b64decode(text) for text in warning["detail"]
    ]
    assert [{"start": {"line": 2, "character": 0}, "end": {"line": 2, "character": 7}}] == warning["range"]


def test_what_a_build_remembers_of_rules(project: Project) -> None:
    """Whatever the rules look at is looked at again when it has changed."""
    project.dockerfile("ARG name", "FROM scratch", "ARG name", "COPY build.log /", "WORKDIR /$other")
    project.write("build.log", "")

    def told(*words: str) -> list[str]:
        err = project.build("--progress", "plain", *words, ".").err
        return [line.split(":")[0][3:] for line in err.splitlines() if line.startswith(" - ")]

    assert ["UndefinedVar"] == told()
    assert [] == told("--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=UndefinedVar")
    project.write(".dockerignore", "*.nothing\n")
    assert ["UndefinedVar"] == told()
    project.write("Dockerfile", "FROM scratch\nWORKDIR relative\n")
    assert ["WorkdirRelativePath"] == told()
    refused = project.build("--build-arg", "BUILDKIT_DOCKERFILE_CHECK=error=true", ".", status=1).err
    again = project.build("--build-arg", "BUILDKIT_DOCKERFILE_CHECK=error=true", ".", status=1).err
    assert "error: lint violation found for rules: WorkdirRelativePath" in refused
    assert "error: lint violation found for rules: WorkdirRelativePath" in again


def test_a_build_of_a_known_text_imports_no_rule(flawed: Project) -> None:
    """Rules cost a cached build nothing: neither they nor their engine are imported."""
    flawed.build(".")
    program = (
        "import atexit, sys\n"
        "atexit.register(lambda: sys.stderr.write(' '.join(sys.modules)))\n"
        "from builder.cli import main\n"
        f"sys.argv = ['pybuild', '--root', {str(flawed.root)!r}, 'build', '-q', '.']\n"
        "main()\n"
    )
    env = flawed.env() | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", program], cwd=flawed.cwd, env=env, capture_output=True, check=False)
    modules = done.stderr.decode().split()

    assert "builder.build" in modules
    assert [] == [name for name in modules if name.startswith("grammar.lint") or name == "builder.check"]


def test_fix(project: Project) -> None:
    """--fix writes what it repairs, says so, and reports on what is left."""
    path = project.dockerfile("FROM scratch as one", "ENV a b", "ENV c d", "WORKDIR x")
    done = project("check", "--fix", "--format", "github", status=1)

    assert "FROM scratch AS one\nENV a=b\nENV c=d\nWORKDIR x\n" == path.read_text()
    assert "fixed Dockerfile: FromAsCasing\nfixed Dockerfile: LegacyKeyValueFormat (2 times)\n" == done.err
    assert [b"WorkdirRelativePath"] == [line.split(b"title=")[1].split(b"::")[0] for line in done.out.splitlines()]


def test_fix_everything(project: Project) -> None:
    """Where nothing is left the status is 0; where nothing was to do nothing is written."""
    path = project.dockerfile("FROM scratch as one")

    assert b"Check complete, no warnings found.\n" == project("check", "--fix").out
    inode = path.stat().st_ino
    assert "" == project("check", "--fix").err
    assert inode == path.stat().st_ino


def test_diff(project: Project) -> None:
    """--diff shows what --fix would write, and writes nothing."""
    path = project.dockerfile("FROM scratch as one")
    out = project("check", "--diff", status=1).out.decode()

    assert "--- Dockerfile\n+++ Dockerfile\n@@ -1 +1 @@\n-FROM scratch as one\n+FROM scratch AS one\n" == out
    assert "FROM scratch as one\n" == path.read_text()
    assert b"-FROM scratch as one\n" in project("check", "--diff", "-", stdin=path.read_bytes(), status=1).out
    path.write_text("FROM scratch\n")
    assert b"" == project("check", "--diff").out


def test_unsafe_fixes(project: Project) -> None:
    """A guess is made only where guesses are asked for."""
    path = project.dockerfile("FROM scratch", "ARG REGION=a", "ENV x=$REGIN")
    project("check", "--fix", status=1)
    assert "$REGIN\n" in path.read_text()

    project("check", "--fix", "--unsafe-fixes")
    assert "ENV x=$REGION\n" in path.read_text()


def test_options_that_mean_nothing(project: Project) -> None:
    """Options that have nothing to act on are refused."""
    project.dockerfile("FROM scratch")

    assert "--unsafe-fixes says which" in project("check", "--unsafe-fixes", status=2).err
    assert "cannot be written back" in project("check", "--fix", "-", stdin=b"FROM scratch\n", status=2).err
    assert "--select: there is no rule called Nothing" in project("check", "--select", "Nothing", status=2).err


def test_explain(project: Project) -> None:
    """A rule's page can be read without the repository, and so can the list of rules."""
    out = project("check", "--explain", "LegacyKeyValueFormat").out.decode()

    assert out.startswith("LegacyKeyValueFormat (buildkit)\n\nLegacy key/value format")
    assert "    ENV DIR /srv/my app\n" in out
    assert b"UndefinedVar" in project("check", "--explain", "all").out
    assert "is a group of rules" in project("check", "--explain", "buildkit", status=2).err


def test_project_file(project: Project) -> None:
    """The project's file decides about rules and severities; what is only information does not change the status."""
    project.dockerfile("FROM scratch as one", "ENV a b", "MAINTAINER m")
    project.write(
        "pyproject.toml",
        "[tool.pybuild.check]\nignore = ['FromAsCasing']\n"
        "severity = { LegacyKeyValueFormat = 'error', MaintainerDeprecated = 'info' }\n",
    )
    out = project("check", "--format", "github", status=1).out.decode()
    assert ["::error file=Dockerfile", "::notice file=Dockerfile"] == [line.split(",")[0] for line in out.splitlines()]

    answer = json.loads(project("check", "--format", "json", status=1).out)
    assert ["error", "info"] == [one["severity"] for one in answer["warnings"]]
    levels = [
        one["level"] for one in json.loads(project("check", "--format", "sarif", status=1).out)["runs"][0]["results"]
    ]
    assert ["error", "note"] == levels
    assert b"INFO: MaintainerDeprecated" in project("check", "--select", "MaintainerDeprecated").out
    assert b"FromAsCasing" not in project("build", "--check", ".", status=1).out


def test_mistake_in_the_project_file(project: Project) -> None:
    """A rule that does not exist is told where it stands."""
    project.dockerfile("FROM scratch")
    project.write(".pybuild.toml", "[check]\nignore = ['StageNameCase']\n")

    assert "/.pybuild.toml:2:12: error[config]: there is no rule called StageNameCase" in project("check", status=1).err


def test_sarif_fixes(flawed: Project) -> None:
    """SARIF carries the fix, so that a viewer can offer it."""
    result = json.loads(flawed("check", "--format", "sarif", status=1).out)["runs"][0]["results"][0]
    (change,) = result["fixes"][0]["artifactChanges"]

    assert [("=", 6, 7)] == [
        (one["insertedContent"]["text"], one["deletedRegion"]["startColumn"], one["deletedRegion"]["endColumn"])
        for one in change["replacements"]
    ]


def test_warnings_of_the_ignore_file(project: Project) -> None:
    """What stands in another file is shown with that file's lines, in every form."""
    project.dockerfile("FROM scratch")
    project.write(".dockerignore", "Dockerfile\nnowhere\n")
    text = project("check", status=1).out.decode()

    assert "WARNING: UnusedIgnorePattern - pybuild check --explain UnusedIgnorePattern\n" in text
    assert ".dockerignore:2\n" in text
    assert "   2 | >>> nowhere\n" in text
    answer = json.loads(project("check", "--format", "json", status=1).out)
    assert [(1, 2)] == [
        (one["location"]["sourceIndex"], one["location"]["ranges"][0]["start"]["line"]) for one in answer["warnings"]
    ]
    assert ["Dockerfile", ".dockerignore"] == [one["filename"] for one in answer["sources"]]
    assert b"::warning file=.dockerignore,line=2," in project("check", "--format", "github", status=1).out
    run = json.loads(project("check", "--format", "sarif", status=1).out)["runs"][0]
    assert ".dockerignore" == run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert b"no warnings" in project("build", "--check", ".").out
    project.write(".pybuild.toml", "[check]\nextend-select = ['UnusedIgnorePattern']\n")
    assert b"UnusedIgnorePattern" in project("build", "--check", ".", status=1).out


def test_call(flawed: Project) -> None:
    """What can be asked instead of building is answered as by the command of that name, in the formats that it has."""
    before = flawed.images()
    asked = json.loads(flawed("build", "--call=check,format=json", ".", status=1).out)

    assert ["LegacyKeyValueFormat"] == [one["ruleName"] for one in asked["warnings"]]
    assert asked == json.loads(flawed("build", "--check", "--format", "json", ".", status=1).out)
    assert asked == json.loads(flawed("build", "--call=lint,format=json,ignorestatus=true", ".").out)
    assert b"::warning file=Dockerfile,line=2" in flawed("build", "--check", "--format", "github", ".", status=1).out
    assert "2.1.0" == json.loads(flawed("build", "--call", "check,format=sarif", ".", status=1).out)["version"]
    assert flawed("outline").out == flawed("build", "--call=outline", ".").out
    assert b"TARGET      DESCRIPTION\n(default)\n" == flawed("build", "--call=targets", ".").out
    for method in ("targets", "outline"):
        assert flawed(method, "--format", "json").out == flawed("build", f"--call={method},format=json", ".").out
    assert before == flawed.images()
    flawed("build", "-q", "--call=build", "-t", "made:1", ".")
    assert {"docker.io/library/made:1"} == flawed.images() - before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--call=guess"], "--call: there is no 'guess'"),
        (["--call=targets,format=sarif"], "there is no format called 'sarif' for targets"),
        (["--call=check,speed=high"], "--call: 'speed=high' means nothing"),
        (["--call=outline", "--push", "-t", "a"], "--call=outline builds nothing, so --push has nothing to write"),
        (["--format", "json"], "--format is for --check and --call"),
    ],
)
def test_calls_that_mean_nothing(flawed: Project, words: list[str], message: str) -> None:
    """Questions that nobody answers are refused."""
    assert message in flawed("build", *words, ".", status=2).err


@pytest.mark.parametrize(
    ("lines", "message", "place", "rules"),
    [
        (("FROM busybox", "ENV a b", "FOO x"), "unknown instruction: FOO", 3, []),
        (("FROM busybox AS A", "ENV a b", "COPY --from=3 x y"), "invalid stage index 3", 3, ["StageNameCasing"]),
        (("FROM busybox AS A", "COPY --from=a x y"), "circular dependency detected", 2, ["StageNameCasing"]),
        (("FROM busybox", "ENV a b", "USER ${x:-"), "missing '}'", 3, ["LegacyKeyValueFormat"]),
        (("# check=error=true", "FROM busybox", "ENV a b"), "lint violation found", None, ["LegacyKeyValueFormat"]),
    ],
)
def test_files_that_cannot_be_built(
    project: Project, lines: tuple[str, ...], message: str, place: int | None, rules: list[str]
) -> None:
    """Reports are whole where the file is not, as BuildKit's are: what is wrong, and what was found until then."""
    project.dockerfile(*lines)
    told = project("check", "--format", "json", "--select", "buildkit", ".", status=1)
    report = json.loads(told.out)

    assert message in told.err
    assert message in report["buildError"]["message"]
    assert ([] if place is None else [place]) == [
        one["start"]["line"] for one in report["buildError"]["location"].get("ranges", [])
    ]
    assert rules == [one["ruleName"] for one in report["warnings"]]
    assert len(rules) == project("build", "--progress", "plain", ".", status=1).err.count("(line ")
    results = json.loads(project("check", "--format", "sarif", ".", status=1).out)["runs"][0]["results"]
    annotations = project("check", "--format", "github", ".", status=1).out.decode()
    assert (place is not None) == any(message in one["message"]["text"] for one in results)
    assert (place is not None) == (f"::error file=Dockerfile,line={place}" in annotations)


def test_legacy_pairs_are_told_as_they_are_written(project: Project) -> None:
    """The message has the instruction's own letters, as BuildKit's."""
    project.dockerfile("from busybox", "env a b", "Label c d")
    report = json.loads(project("check", "--format", "json", "--select", "LegacyKeyValueFormat", ".", status=1).out)

    assert [
        f'"{name} key=value" should be used instead of legacy "{name} key value" format' for name in ("env", "Label")
    ] == [one["detail"] for one in report["warnings"]]
