"""Running a campaign: its jobs are added to the queue, or run here one after the other, and its locks are kept.

`state.json` beside the file of a campaign has the configuration of each job as it was first run. A parameter that is
locked, then or now, must keep that value.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..core.config_digest import config_digest
from ..core.documents import json_text
from ..core.errors import FileFormatError, LockedField, StorageError
from ..core.text import shown
from ..weights.atomic import write_text
from .campaign import Campaign, CampaignJob
from .jobs import Job, JobOptions
from .layers import Layer, Resolved
from .queue import JobQueue
from .resuming import resumed
from .workflow_table import find_workflow

log = logging.getLogger(__name__)

STATE = "state.json"
"""The file with the configurations of the jobs that a campaign has run."""

_STARTED, _DONE = "started", "done"

Layers = Callable[[str], Sequence[Layer]]
"""The layers after those of the campaign, for a workflow."""


@dataclass(frozen=True)
class PlannedJob:
    """A job of a campaign with its configuration.

    Attributes:
        name: name in the queue, `<campaign>/<job>`.
        needed: names in the campaign of the jobs that must be done before.
    """

    name: str
    job: CampaignJob
    resolved: Resolved
    needed: Sequence[str]


@dataclass(frozen=True)
class AddedJob:
    """A job of a campaign in the queue.

    Attributes:
        added: whether it is new; an equal one was in the queue otherwise.
    """

    planned: PlannedJob
    job: Job
    added: bool


def plan(campaign: Campaign, layers: Layers = lambda workflow: ()) -> list[PlannedJob]:
    """The jobs of a campaign with their configurations, in their order. Nothing is written.

    Raises:
        LockedField: a locked parameter has another value than in the first run of a job.
        MetaoptError: a configuration is refused; nothing was run.
    """
    campaign.check_locked()
    planned = [
        PlannedJob(
            f"{campaign.name}/{job.title}", job, campaign.resolved(job, layers(job.workflow)), campaign.needed(job)
        )
        for job in campaign.jobs
    ]
    state = _read_state(campaign)
    for each in planned:
        _check_locks(campaign, each, state.get(each.job.title, {}))
    return planned


def add_to_queue(campaign: Campaign, queue: JobQueue, layers: Layers = lambda workflow: ()) -> list[AddedJob]:
    """Add the jobs of a campaign to a queue, with their dependencies.

    A job that the queue has, of the same name and configuration, is not added again: run it as often as you like.

    Raises:
        MetaoptError: as for `plan`, or the queue cannot be used.
    """
    with _locked(campaign):
        planned = plan(campaign, layers)
        present = {(job.name, _digest_of(job)): job for job in queue.jobs() if job.name.startswith(f"{campaign.name}/")}
        found: dict[str, AddedJob] = {}
        for each in planned:
            same = None if _files_changed(campaign, each) else present.get((each.name, each.resolved.digest))
            after = tuple(found[name].job.id for name in each.needed)
            options = JobOptions(name=each.name, after=after, priority=each.job.priority)
            _remember(campaign, each)
            job = same or queue.add(each.resolved.workflow, each.resolved.config.to_mapping(), options)
            found[each.job.title] = AddedJob(each, job, same is None)
        return list(found.values())


def run_here(campaign: Campaign, layers: Layers = lambda workflow: ()) -> Iterator[tuple[PlannedJob, Any]]:
    """Run the jobs of a campaign in this process, one after the other; yields each job and what its workflow returned.

    A job that was done here with the same configuration is left out, and one that was interrupted goes on as it would
    in a queue. The first error ends the campaign.

    Raises:
        MetaoptError: as for `plan` and the workflows.
    """
    with _locked(campaign):
        for each in plan(campaign, layers):
            before = _read_state(campaign).get(each.job.title, {})
            same = before.get("digest") == each.resolved.digest
            if same and before.get("here") == _DONE:
                log.info("%s is done", each.name)
                continue
            config = each.resolved.config
            if same and before.get("here") == _STARTED:
                config = resumed(each.resolved.workflow, config)
            _remember(campaign, each, here=_STARTED)
            returned = find_workflow(each.resolved.workflow).run(config)
            _remember(campaign, each, here=_DONE)
            yield each, returned


def _check_locks(campaign: Campaign, planned: PlannedJob, before: Mapping[str, Any]) -> None:
    """Raise if a parameter that is locked, or was in the first run, has another value than then."""
    values, first = planned.resolved.config.to_mapping(), before.get("config", {})
    for name in dict.fromkeys([*before.get("locked", ()), *campaign.config.locked]):
        if name in values and name in first and json.loads(json.dumps(values[name])) != first[name]:
            raise LockedField(
                f"{name} of the job {planned.job.title} is {shown(values[name])} ({planned.resolved.origins[name]}), "
                f"and the campaign {campaign.name} has locked it at {shown(first[name])}; give that value, or make "
                "another campaign with `metaopt campaign new`"
            )


def _files_changed(campaign: Campaign, planned: PlannedJob) -> bool:
    """Whether a file that the configuration names has other contents than when the job was added.

    The digest of a job in the queue is computed from the present contents.
    """
    before = _read_state(campaign).get(planned.job.title, {})
    same = before.get("config") == json.loads(json.dumps(planned.resolved.config.to_mapping()))
    return same and before.get("digest") != planned.resolved.digest


def _remember(campaign: Campaign, planned: PlannedJob, here: str | None = None) -> None:
    """Write that a job runs with its configuration. The values of locked parameters stay those of the first run."""
    state = _read_state(campaign)
    before, resolved = state.get(planned.job.title, {}), planned.resolved
    locked = dict.fromkeys([*before.get("locked", ()), *campaign.config.locked])
    here = here or (before.get("here") if before.get("digest") == resolved.digest else None)
    state[planned.job.title] = {
        "workflow": resolved.workflow,
        "digest": resolved.digest,
        "config": resolved.config.to_mapping(),
        "locked": [name for name in locked if name in resolved.config.names()],
        "here": here,
    }
    write_text(_state_file(campaign), json_text({"jobs": state}))


def _read_state(campaign: Campaign) -> dict[str, dict[str, Any]]:
    path = _state_file(campaign)
    if not path.exists():
        return {}
    try:
        jobs = json.loads(path.read_text(encoding="utf-8"))["jobs"]
        if not isinstance(jobs, dict) or not all(isinstance(job, dict) for job in jobs.values()):
            raise TypeError("its jobs are no mapping")
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise FileFormatError(
            f"{path} is damaged ({shown(error)}); it has the locks of the campaign: restore it, or remove it and check "
            "the parameters in `locked` yourself"
        ) from error
    return jobs


def _digest_of(job: Job) -> str:
    """The digest of the configuration of a job in the queue; empty if this metaopt cannot read it."""
    try:
        return config_digest(find_workflow(job.workflow).config_class.from_mapping(job.config))
    except ValueError:
        return ""


def _state_file(campaign: Campaign) -> Path:
    return campaign.path.with_name(STATE)


@contextmanager
def _locked(campaign: Campaign) -> Iterator[None]:
    """Let one process at a time run a campaign."""
    lock = FileLock(campaign.path.with_name(".lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise StorageError(f"another process runs the campaign {campaign.name} ({lock.lock_file}); wait") from error
    except OSError as error:
        raise StorageError(f"cannot write {lock.lock_file}: {error.strerror}; make its folder writable") from error
    try:
        yield
    finally:
        lock.release()
