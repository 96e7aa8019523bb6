"""Runs the checks of a level on all subjects of some paths, and says what they found."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.config import option
from ...core.errors import InvalidConfig, MetaoptError
from ...core.registry import suggest
from ...core.text import aligned, counted, printable, reason_of, shown
from . import checks_for
from .base import LEVELS, CannotCheck, Check, Finding
from .subjects import Settings, Subject, find_subjects

_MOST = 20  # findings of a check that are kept [count]
_RAISED = (OSError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RuntimeError)


class ValidateConfig(Settings):
    """Settings of a validation: the paths, the level, and what they must have nothing in common with."""

    paths: tuple[str, ...] = option(
        default=(), help="Files, folders or run names to validate; of a folder, all that is in it."
    )
    level: str = option(
        default="standard",
        help="What is read: quick: headers and schemas; standard: all values; deep: what is stated is measured again, "
        "and all is compared.",
        choices=LEVELS,
    )
    against: tuple[str, ...] = option(
        default=(),
        help="Files, folders or run names, with commas in between, that must have nothing in common with the others, "
        "such as held-out recordings; for the level deep.",
    )
    most: int = option(default=_MOST, help="Findings of a check to show; all are counted [count].", at_least=1)
    record: bool = option(
        default=False, help="Write beside what has passed which checks, and a sha256: validated.json."
    )


@dataclass(frozen=True)
class Outcome:
    """What one check found on one subject.

    Attributes:
        check, version, level: of the check.
        findings: the first ones.
        count: all findings [count].
        reason: why it could not judge, or not all; None if it could.
    """

    subject: Subject
    check: str
    version: int
    level: str
    findings: tuple[Finding, ...] = ()
    count: int = 0
    reason: str | None = None

    @property
    def result(self) -> str:
        """`passed`, `failed` or `not checked`."""
        return "failed" if self.count else "passed" if self.reason is None else "not checked"


@dataclass(frozen=True)
class Report:
    """What a validation found.

    Attributes:
        level: that of the validation.
        outcomes: of each subject and check.
    """

    level: str
    outcomes: Sequence[Outcome]

    @property
    def failed(self) -> bool:
        """Whether anything was found."""
        return any(outcome.count for outcome in self.outcomes)

    @property
    def subjects(self) -> list[Subject]:
        """What was validated."""
        return list({id(outcome.subject): outcome.subject for outcome in self.outcomes}.values())

    def of(self, subject: Subject) -> list[Outcome]:
        """The outcomes of one subject."""
        return [outcome for outcome in self.outcomes if outcome.subject is subject]

    def versions(self, subject: Subject) -> dict[str, int]:
        """The checks that a subject has passed, with their versions."""
        return {outcome.check: outcome.version for outcome in self.of(subject) if outcome.result == "passed"}

    def facts(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "level": self.level,
            "failed": self.failed,
            "subjects": [
                {
                    "path": subject.name,
                    "kind": subject.kind,
                    "passed": self.versions(subject),
                    "failed": {
                        each.check: {"count": each.count, "findings": [finding._asdict() for finding in each.findings]}
                        for each in self.of(subject)
                        if each.count
                    },
                    "not_checked": {each.check: each.reason for each in self.of(subject) if each.reason is not None},
                }
                for subject in self.subjects
            ],
        }

    def table(self) -> str:
        """A table of subjects and checks for each kind of subject, and all findings below."""
        kinds = dict.fromkeys(subject.kind for subject in self.subjects)
        parts = [self._table_of(kind) for kind in kinds]
        if found := [each for each in self.outcomes if each.count]:
            parts.append("\n".join(line for each in found for line in _finding_lines(each)))
        if reasons := {(each.check, str(each.reason)): each for each in self.outcomes if each.reason is not None}:
            lines = [f"  {check}: {printable(reason)}" for check, reason in reasons]
            parts.append("\n".join(["not checked:", *lines]))
        return "\n\n".join(parts) + "\n"

    def _table_of(self, kind: str) -> str:
        subjects = [subject for subject in self.subjects if subject.kind == kind]
        checks = list(dict.fromkeys(each.check for subject in subjects for each in self.of(subject)))
        rows = [[kind, *checks]]
        for subject in subjects:
            cells = {each.check: _cell(each) for each in self.of(subject)}
            rows.append([printable(subject.name), *(cells.get(name, "") for name in checks)])
        return "\n".join(aligned(rows))


def validate(
    paths: Iterable[str | Path],
    level: str = "standard",
    against: Iterable[str | Path] = (),
    settings: Settings | None = None,
    most: int = _MOST,
) -> Report:
    """Run the checks of a level and of all levels below it.

        from metaopt.operations.validation import validate

        report = validate(["trajectories/digits"], "deep")
        for outcome in report.outcomes:
            print(outcome.subject.name, outcome.check, outcome.result, outcome.findings)

    Nothing is written, and nothing that a file names is imported unless the settings trust it. If a check of one level
    finds something, those of higher levels do not run on that subject, apart from those that do not depend on it.

    Args:
        paths: files, folders or run names.
        level: `quick`, `standard` or `deep`.
        against: what must have nothing in common with the paths; compared at the level `deep`.
        settings: what checks need beside the files.
        most: findings of a check that are kept [count].
    Raises:
        InvalidConfig: there is nothing to validate at a path, or no such level.
    """
    if level not in LEVELS:
        raise InvalidConfig(f"level is {shown(level)}: {suggest(str(level), LEVELS)}")
    settings = settings or Settings()
    subjects, others = find_subjects(paths, settings), find_subjects(against, settings)
    if not subjects:
        raise InvalidConfig("nothing to validate is given; expected paths: metaopt validate trajectories/digits")
    levels = LEVELS[: LEVELS.index(level) + 1]
    checks = {kind: {each: checks_for(each, kind) for each in levels} for kind in {each.kind for each in subjects}}
    outcomes = list[Outcome]()
    for index, subject in enumerate(subjects):
        subject.earlier, subject.against = subjects[:index], others
        outcomes += _outcomes(subject, checks[subject.kind], most)
    return Report(level, outcomes)


def _outcomes(subject: Subject, checks: Mapping[str, Mapping[str, Check]], most: int) -> Iterator[Outcome]:
    """The outcomes of all checks of one subject, level by level."""
    failed: str | None = None
    known: dict[str, str] = {}
    for each, of_level in checks.items():
        found = list[Outcome]()
        for name, check in of_level.items():
            if failed is not None and not check.independent:
                found.append(Outcome(subject, name, check.version, each, reason=f"a {failed} check failed"))
            else:
                found.append(_outcome(subject, name, check, most, known))
        yield from found
        if failed is None and any(outcome.count for outcome in found):
            failed = each


def _outcome(subject: Subject, name: str, check: Check, most: int, known: dict[str, str]) -> Outcome:
    """Run one check. Whatever it raises for a subject that it did not expect is a finding.

    Args:
        known: the check that found each message; what another one has found is not repeated.
    """
    findings, count, reason = list[Finding](), 0, None
    try:
        for finding in check.check(subject):
            count += 1
            if len(findings) < most:
                findings.append(finding)
    except CannotCheck as error:
        reason = str(error)
    except _RAISED as error:
        text = str(error) if isinstance(error, MetaoptError) else f"the check cannot read it ({reason_of(error)})"
        if text in known:
            reason = f"{known[text]} failed"
        else:
            count, findings = count + 1, [*findings, Finding(subject.name, text)]
    known.update({finding.message: name for finding in findings})
    return Outcome(subject, name, check.version, check.level, tuple(findings), count, reason)


def _cell(outcome: Outcome) -> str:
    return {"passed": "ok", "not checked": "–"}.get(outcome.result) or counted(outcome.count, "finding")


def _finding_lines(outcome: Outcome) -> list[str]:
    more = outcome.count - len(outcome.findings)
    lines = [f"{printable(outcome.subject.name)}, {outcome.check}:"]
    lines += [f"  {printable(finding.where)}: {printable(finding.message)}" for finding in outcome.findings]
    return [*lines, *([f"  … and {more:,} more"] if more > 0 else [])]
