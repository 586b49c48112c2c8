"""Every rule, by the shape it has and in the order in which the reference runs them."""

from __future__ import annotations

from grammar.lint.rule import FileRule, GraphRule, InstructionRule, PlanRule, Rule
from grammar.lint.rules.commands import JSONArgsRecommended, MultipleInstructionsDisallowed
from grammar.lint.rules.context import CopyIgnoredFile, UnusedIgnorePattern
from grammar.lint.rules.descriptions import InvalidDefinitionDescription
from grammar.lint.rules.layout import ConsistentInstructionCasing, NoEmptyContinuation
from grammar.lint.rules.legacy import LegacyKeyValueFormat, MaintainerDeprecated
from grammar.lint.rules.order import CopyBeforeInstall
from grammar.lint.rules.packages import (
    AptListsNotRemoved,
    PinApkPackages,
    PinAptPackages,
    PinBaseImage,
    PinNpmPackages,
    PinPipPackages,
)
from grammar.lint.rules.platforms import (
    FromPlatformFlagConstDisallowed,
    InvalidBaseImagePlatform,
    RedundantTargetPlatform,
)
from grammar.lint.rules.ports import ExposeInvalidFormat, ExposeProtoCasing
from grammar.lint.rules.secrets import SecretArgInImage, SecretsUsedInArgOrEnv
from grammar.lint.rules.stages import DuplicateStageName, FromAsCasing, ReservedStageName, StageNameCasing, UnusedStage
from grammar.lint.rules.variables import InvalidDefaultArgInFrom, UndeclaredGlobalArg, UndefinedArgInFrom, UndefinedVar
from grammar.lint.rules.workdir import WorkdirRelativePath

FILE_RULES: tuple[FileRule, ...] = (
    NoEmptyContinuation(),
    StageNameCasing(),
    FromAsCasing(),
    InvalidDefinitionDescription(),
    MaintainerDeprecated(),
    ReservedStageName(),
    DuplicateStageName(),
    ConsistentInstructionCasing(),
)

INSTRUCTION_RULES: tuple[InstructionRule, ...] = (
    SecretsUsedInArgOrEnv(),
    LegacyKeyValueFormat(),
    MultipleInstructionsDisallowed(),
    JSONArgsRecommended(),
    WorkdirRelativePath(),
    ExposeInvalidFormat(),
    ExposeProtoCasing(),
)

PLAN_RULES: tuple[PlanRule, ...] = (
    InvalidDefaultArgInFrom(),
    UndefinedArgInFrom(),
    RedundantTargetPlatform(),
    FromPlatformFlagConstDisallowed(),
    InvalidBaseImagePlatform(),
    UndefinedVar(),
    CopyIgnoredFile(),
    UnusedIgnorePattern(),
)

GRAPH_RULES: tuple[GraphRule, ...] = (
    UnusedStage(),
    UndeclaredGlobalArg(),
    CopyBeforeInstall(),
    AptListsNotRemoved(),
    SecretArgInImage(),
    PinBaseImage(),
    PinAptPackages(),
    PinApkPackages(),
    PinPipPackages(),
    PinNpmPackages(),
)

RULES: tuple[Rule, ...] = tuple(
    sorted((*FILE_RULES, *INSTRUCTION_RULES, *PLAN_RULES, *GRAPH_RULES), key=lambda rule: rule.name)
)
