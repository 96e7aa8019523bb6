"""Corruptions that the checks of `metaopt validate` must find, and alarms on clean files, which must be rare.

    python -m benchmarks.operations.corruptions --seeds 5

For each random seed it makes clean trajectories, checkpoints, models and files of conversations by the code that makes
them for users, plants each corruption several times in a copy, and validates it. A corruption is caught if the check
that is named for it finds something at its level. An alarm is a check that finds something in clean files. The goals
are 100 % and at most 1 %.
"""

import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import click

from metaopt.core.documents import markdown_table
from metaopt.core.text import aligned
from metaopt.operations.validation import LEVELS, Report, Settings, validate

from . import corruptions_of_checkpoints, corruptions_of_files, corruptions_of_lines, corruptions_of_trajectories
from ._corruption import Corruption
from .clean_files import make_clean, write_lines

_MODULES = (corruptions_of_files, corruptions_of_trajectories, corruptions_of_checkpoints, corruptions_of_lines)

CORRUPTIONS = {each.name: each for module in _MODULES for each in module.CORRUPTIONS}
"""All corruptions by name."""


class Trial(NamedTuple):
    """A corruption that was planted once.

    Attributes:
        caught: whether its check found something at its level.
        by: the checks that found something.
    """

    corruption: Corruption
    caught: bool
    by: tuple[str, ...]


def try_corruption(corruption: Corruption, clean: Path, chosen: random.Random) -> Trial:
    """Plant a corruption in a copy of clean files, and validate it at its level."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "copy"
        shutil.copytree(clean, root)
        call = corruption.plant(root, chosen)
        settings = Settings(trajectory_dir=root / "trajectories")
        report = validate(call.paths, corruption.level, call.against, settings)
    found = tuple(dict.fromkeys(outcome.check for outcome in report.outcomes if outcome.count))
    return Trial(corruption, corruption.check in found if corruption.check else bool(found), found)


def validate_clean(clean: Path) -> Report:
    """Validate clean files at the level deep; each file of conversations against other ones."""
    others = clean.with_name(f"{clean.name}_others")
    write_lines(others, 1000, 40)
    settings = Settings(trajectory_dir=clean / "trajectories")
    report = validate([clean], LEVELS[-1], [others], settings)
    shutil.rmtree(others)
    return report


@click.command()
@click.option("--seeds", default=5, show_default=True, help="Random seeds, each with clean files of its own.")
@click.option("--times", default=3, show_default=True, help="How often each corruption is planted per seed.")
def main(seeds: int, times: int) -> None:
    """Print how many corruptions were caught, and how many alarms clean files raised."""
    trials, reports = list[Trial](), list[Report]()
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            clean = Path(folder) / str(seed)
            make_clean(clean, seed)
            reports.append(validate_clean(clean))
            for name, corruption in CORRUPTIONS.items():
                for number in range(times):
                    trials.append(try_corruption(corruption, clean, random.Random(f"{seed} {name} {number}")))
            click.echo(f"random seed {seed}: {sum(each.caught for each in trials)} of {len(trials)} caught", err=True)
    click.echo(_text(trials, reports))


def _text(trials: list[Trial], reports: list[Report]) -> str:
    planted = Counter((each.corruption.level, each.corruption.check or "any") for each in trials)
    caught = Counter((each.corruption.level, each.corruption.check or "any") for each in trials if each.caught)
    rows = [[level, check, str(count), str(caught[level, check])] for (level, check), count in planted.items()]
    rows.sort(key=lambda row: LEVELS.index(row[0]))
    missed = Counter((each.corruption.name, each.by) for each in trials if not each.caught)
    outcomes = [outcome for report in reports for outcome in report.outcomes]
    judged = [outcome for outcome in outcomes if outcome.result != "not checked"]
    alarms = [outcome for outcome in judged if outcome.count]
    subjects = sum(len(report.subjects) for report in reports)
    alarmed = len({id(outcome.subject) for outcome in alarms})
    total = sum(each.caught for each in trials)
    return "\n".join(
        [
            markdown_table(["level", "check", "planted", "caught"], rows),
            "",
            f"corruptions: {len({each.corruption.name for each in trials})} kinds, planted {len(trials)} times, caught "
            f"{total} ({100 * total / len(trials):.2f} %; goal 100 %)",
            f"clean: {subjects} subjects, {len(judged)} results of checks; alarms on {alarmed} subjects "
            f"({100 * alarmed / subjects:.2f} %; goal ≤ 1 %), in {len(alarms)} results",
            *(f"missed {count} times: {name}; found by {by or 'none'}" for (name, by), count in missed.items()),
            *aligned([[each.subject.name, each.check, str(each.findings[:1])] for each in alarms] or [[""]]),
        ]
    )


if __name__ == "__main__":
    main()
