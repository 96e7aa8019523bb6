"""Campaigns: files that name a hero, and an ordered list of jobs with what each changes of it.

    hero: configs/heroes/digits-mlp.yaml
    locked: [task, target_model]
    jobs:
    - {name: record, workflow: train-target}
    - {name: learn, workflow: train-optimizer, overrides: {epochs: 20}}

A job waits for the one before it, unless `after` names others (`after: []` for none). Paths start at the working
folder, as in every configuration.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.config import Config, Options, option, read_config_file
from ..core.errors import InvalidConfig, MetaoptError
from ..core.registry import suggest
from ..core.text import shown
from ..core.yaml_values import lines_of_names
from .heroes import read_hero
from .hosts import machine_layer
from .layers import FLAG, Given, Layer, Origin, Resolved, own_layer, resolve, shared_layer
from .workflow_table import WORKFLOWS, find_workflow

FILE = "campaign.yaml"
"""The file in the folder of a campaign."""

_JOBS = "jobs"
_LONGEST_NAME = 100  # [characters]


class CampaignConfig(Config):
    """A campaign, apart from its jobs."""

    hero: Path | None = option(default=None, help="File with the parameters that its jobs share.")
    locked: tuple[str, ...] = option(default=(), help="Parameters that no later run of a job may change.")


class CampaignJob(Config):
    """A job of a campaign."""

    workflow: str = option(default="train-target", help="Name of a command.")
    name: str | None = option(default=None, help="Its name in the campaign; by default that of the command.")
    overrides: Options = option(default={}, help="Parameters that replace those of the hero.")
    after: tuple[str, ...] | None = option(
        default=None, help="Jobs that must be done before; by default the one before it in the list."
    )
    priority: int = option(default=0, help="Jobs of a higher priority run first.")

    @property
    def title(self) -> str:
        """Its name."""
        return self.name or self.workflow


@dataclass(frozen=True)
class Campaign:
    """A campaign, checked.

    Attributes:
        name: name of its folder.
        path: its file.
        config: hero and locked parameters.
        jobs: in their order; each waits for earlier ones only.
    """

    name: str
    path: Path
    config: CampaignConfig
    jobs: Sequence[CampaignJob]

    def needed(self, job: CampaignJob) -> tuple[str, ...]:
        """The names of the jobs that must be done before a job."""
        if job.after is not None:
            return job.after
        position = [each.title for each in self.jobs].index(job.title)
        return (self.jobs[position - 1].title,) if position else ()

    def resolved(self, job: CampaignJob, layers: Sequence[Layer] = ()) -> Resolved:
        """The configuration of a job: defaults, then the hero, then its overrides, then further layers.

        Raises:
            UntrustedCode: a file names code, and no flag trusts it.
            InvalidConfig: a parameter is unknown, or a value is invalid.
        """
        return resolve(job.workflow, [*self.layers(job), *layers])

    def layers(self, job: CampaignJob) -> list[Layer]:
        """What the hero and the campaign state for a job.

        Raises:
            InvalidConfig: a file cannot be read, or a parameter is unknown.
        """
        hero = [read_hero(self.config.hero, job.workflow, optional=True)] if self.config.hero else []
        return [*hero, self._overrides(job)]

    def find(self, workflow: str | None, name: str | None) -> CampaignJob:
        """The job of a workflow or of a name.

        Raises:
            InvalidConfig: there is none, or several.
        """
        found = [each for each in self.jobs if workflow in (None, each.workflow) and name in (None, each.title)]
        if len(found) != 1:
            jobs = ", ".join(f"{each.title} ({each.workflow})" for each in self.jobs)
            raise InvalidConfig(
                f"{len(found)} jobs of the campaign {self.name} have the workflow {workflow or 'any'} and the name "
                f"{shown(name) if name else 'any'}; expected one of {jobs}: choose it with --job"
            )
        return found[0]

    def check_locked(self) -> None:
        """Check that each locked parameter is one of a job.

        Raises:
            InvalidConfig: no job has it; the message has the nearest names.
        """
        known = [name for job in self.jobs for name in find_workflow(job.workflow).config_class.names()]
        for name in self.config.locked:
            if name not in known:
                nearest = suggest(name, dict.fromkeys(known))
                raise InvalidConfig(f"{self.path} locks {shown(name)}, which no job has: {nearest}")

    def _overrides(self, job: CampaignJob) -> Layer:
        position = [each.title for each in self.jobs].index(job.title)
        lines, way = lines_of_names(self.path), (_JOBS, str(position), "overrides")
        names = {name.replace("-", "_"): value for name, value in job.overrides.items()}
        values = {
            name: Given(value, Origin("campaign", self.path, lines.get((*way, name)))) for name, value in names.items()
        }
        return own_layer(values, job.workflow, f"the job {job.title} of {self.path}")


def read_campaign(folder: Path) -> Campaign:
    """Read the campaign of a folder.

    Raises:
        InvalidConfig: the file cannot be read, or a value is invalid; the message names the job.
        UnknownName: a job names an unknown workflow.
    """
    path = folder / FILE
    values = read_config_file(path)
    given = values.pop(_JOBS, None)
    if not isinstance(given, list) or not given:
        raise InvalidConfig(
            f"{path} has the jobs {shown(given)}; expected a list such as `- {{name: record, workflow: train-target}}`"
        )
    try:
        config = CampaignConfig.from_mapping(values)
    except MetaoptError as error:
        raise InvalidConfig(f"{path}: {error}") from error
    jobs = [_job(path, *each) for each in enumerate(given, 1)]
    _check_order(path, jobs)
    return Campaign(folder.name, path, config, jobs)


def machine_and_flags(
    workflow: str, machine: str | None = None, hosts: Path | None = None, flags: Mapping[str, Any] | None = None
) -> list[Layer]:
    """The two last layers of a job of a campaign.

    Args:
        machine: name of a machine in the file `hosts`.
        flags: parameters for each job whose workflow has them.
    Raises:
        UnknownName: the machine is unknown.
        InvalidConfig: a parameter is unknown.
    """
    layers = [] if machine is None or hosts is None else [machine_layer(hosts, machine, workflow)]
    given = {name.replace("-", "_"): Given(value, Origin(FLAG)) for name, value in (flags or {}).items()}
    return [*layers, shared_layer(given, workflow, "the command line")]


def check_name(name: str, what: str) -> str:
    """Return the name of a campaign or a job unchanged if it can be the name of a folder.

    Raises:
        InvalidConfig: it cannot.
    """
    plain = name.isprintable() and not any(each in name for each in "/\\ ") and not name.startswith((".", "-"))
    if not 0 < len(name) <= _LONGEST_NAME or not plain:
        raise InvalidConfig(
            f"the name of {what} is {shown(name)}; expected 1 to {_LONGEST_NAME} printable characters, without spaces "
            'and slashes, not starting with "." or "-", such as "digits-mlp"'
        )
    return name


def _job(path: Path, number: int, values: Any) -> CampaignJob:
    if not isinstance(values, Mapping):
        raise InvalidConfig(
            f"job {number} of {path} is {shown(values)}; expected names with values, such as `workflow: train-target`"
        )
    try:
        job = CampaignJob.from_mapping({name.replace("-", "_"): value for name, value in values.items()})
        find_workflow(job.workflow)
        check_name(job.title, "a job")
    except MetaoptError as error:
        raise type(error)(f"job {number} of {path}: {error}") from error
    if "workflow" not in values:
        raise InvalidConfig(f"job {number} of {path} has no workflow; expected one of {', '.join(WORKFLOWS)}")
    return job


def _check_order(path: Path, jobs: Sequence[CampaignJob]) -> None:
    earlier: list[str] = []
    for job in jobs:
        if job.title in earlier:
            raise InvalidConfig(f"{path} has two jobs of the name {shown(job.title)}; give each its own `name`")
        for needed in job.after or ():
            if needed not in earlier:
                raise InvalidConfig(
                    f"the job {job.title} of {path} comes after {shown(needed)}, which is no job before it: "
                    f"{suggest(needed, earlier) if earlier else 'it is the first'}"
                )
        earlier.append(job.title)
