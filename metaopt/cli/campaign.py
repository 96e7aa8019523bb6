"""`metaopt campaign`: make, list and choose campaigns, and run their jobs."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.text import aligned
from ..operations.campaign import Campaign, machine_and_flags
from ..operations.campaign_folder import CAMPAIGNS, CampaignFolder
from ..operations.hosts import HOSTS
from .options import EPILOG, first_word, flag_values
from .output import Result, show

if TYPE_CHECKING:
    from ..operations.campaign_run import PlannedJob

_in_folder = click.option(
    "--campaign-dir",
    type=click.Path(path_type=Path),
    default=CAMPAIGNS,
    show_default=True,
    help="Folder of all campaigns.",
)


@click.group("campaign")
def command() -> None:
    """Run jobs that belong together: a hero with their parameters, and what each job changes of it."""


@command.command("new", epilog=EPILOG)
@click.argument("name")
@click.option("--hero", type=click.Path(path_type=Path), required=True, help="File with the parameters of its jobs.")
@_in_folder
def new(name: str, hero: Path, campaign_dir: Path) -> None:
    """Make a campaign with a job for each section of a hero, and make it the current one."""
    campaign = CampaignFolder(campaign_dir).new(name, hero)
    jobs = [job.title for job in campaign.jobs]
    lines = {"campaign": str(campaign.path), "jobs": ", ".join(jobs)}
    following = [["metaopt", "campaign", "run", name, "--dry-run", *_folder_words(campaign_dir)]]
    show(Result({"name": name, "path": campaign.path, "jobs": jobs}, lines, following), "campaign new")


@command.command("list", epilog=EPILOG)
@_in_folder
def list_campaigns(campaign_dir: Path) -> None:
    """List all campaigns; the current one has a star."""
    folder = CampaignFolder(campaign_dir)
    rows = [["*" if name == folder.current else "", name] for name in folder.names]
    lines = {} if rows else {"no campaigns": f"in {campaign_dir}/; make one with `metaopt campaign new`"}
    table = "\n".join(aligned(rows)) if rows else ""
    show(Result({"campaigns": folder.names, "current": folder.current}, lines, table=table), "campaign list")


@command.command("show", epilog=EPILOG)
@click.argument("name", required=False)
@_in_folder
def show_campaign(name: str | None, campaign_dir: Path) -> None:
    """Show the jobs of a campaign, the current one by default."""
    campaign = CampaignFolder(campaign_dir).read(name)
    rows = [
        [job.title, job.workflow, ", ".join(campaign.needed(job)) or "–", _words(job.overrides) or "–"]
        for job in campaign.jobs
    ]
    facts = {
        "name": campaign.name,
        "path": campaign.path,
        "hero": campaign.config.hero,
        "locked": campaign.config.locked,
        "jobs": [{**job.to_mapping(), "name": job.title, "after": campaign.needed(job)} for job in campaign.jobs],
    }
    lines = {
        "campaign": str(campaign.path),
        "hero": str(campaign.config.hero or "none"),
        "locked": ", ".join(campaign.config.locked) or "nothing",
    }
    table = "\n".join(aligned([["job", "command", "after", "overrides"], *rows]))
    show(Result(facts, lines, table=table), "campaign show")


@command.command("switch", epilog=EPILOG)
@click.argument("name")
@_in_folder
def switch(name: str, campaign_dir: Path) -> None:
    """Make a campaign the current one."""
    CampaignFolder(campaign_dir).switch(name)
    show(Result({"current": name}, {"current": name}), "campaign switch")


@command.command("run", epilog=EPILOG, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.argument("name", required=False)
@_in_folder
@click.option("--queue", help="URL or file of the queue; by default METAOPT_QUEUE, then queue.db.")
@click.option("--machine", help="Machine whose parameters to add.")
@click.option("--hosts", type=click.Path(path_type=Path), default=HOSTS, show_default=True, help="File of machines.")
@click.option("--here", is_flag=True, help="Run the jobs in this process, one after the other, without the queue.")
@click.option("--dry-run", is_flag=True, help="Only show the jobs and what they change of the defaults.")
@click.pass_context
def run(
    context: click.Context,
    name: str | None,
    campaign_dir: Path,
    queue: str | None,
    machine: str | None,
    hosts: Path,
    here: bool,
    dry_run: bool,
) -> None:
    """Add the jobs of a campaign to the queue, in their order; the current campaign by default.

    A job that the queue has, of the same name and configuration, is not added again. Further flags are parameters of
    every job that has them, such as `--trust-config true`.
    """
    from ..operations.campaign_run import add_to_queue, plan  # it imports SQLAlchemy, which takes seconds
    from ..operations.queue import JobQueue
    from .queue import worker_words

    name, words = first_word(name, context.args)
    campaign, flags = CampaignFolder(campaign_dir).read(name), flag_values(words)
    layers = partial(machine_and_flags, machine=machine, hosts=hosts, flags=flags)
    if dry_run:
        show(_planned(campaign, plan(campaign, layers)), "campaign run")
    elif here:
        show(_ran(campaign, layers), "campaign run")
    else:
        with JobQueue(queue) as jobs:
            added = add_to_queue(campaign, jobs, layers)
        rows = [[str(each.job.id), each.job.name, str(each.job.state), "added" if each.added else "was there"]
                for each in added]  # fmt: skip
        facts = [{"id": each.job.id, "name": each.job.name, "state": each.job.state, "added": each.added,
                  "digest": each.planned.resolved.digest} for each in added]  # fmt: skip
        new_jobs = sum(each.added for each in added)
        lines = {"queue": f"{new_jobs} of {len(added)} jobs added"}
        table = "\n".join(aligned([["id", "job", "state", ""], *rows]))
        following = [worker_words([each.job for each in added], queue)]
        show(Result({"campaign": campaign.name, "jobs": facts}, lines, following, table), "campaign run")


def _planned(campaign: Campaign, jobs: Sequence["PlannedJob"]) -> Result:
    """The jobs, and the parameters that do not have their defaults."""
    rows, facts = [], []
    for each in jobs:
        values, origins = each.resolved.config.to_mapping(), each.resolved.origins
        changed = {name: value for name, value in values.items() if origins[name].layer != "default"}
        rows.append([each.job.title, each.resolved.workflow, ", ".join(each.needed) or "–", _words(changed) or "–"])
        facts.append({"name": each.name, "workflow": each.resolved.workflow, "after": each.needed,
                      "digest": each.resolved.digest, "parameters": values})  # fmt: skip
    table = "\n".join(aligned([["job", "command", "after", "parameters"], *rows]))
    lines = {"dry run": f"{len(jobs)} jobs, nothing was added"}
    return Result({"campaign": campaign.name, "jobs": facts}, lines, table=table)


def _ran(campaign: Campaign, layers: Callable[[str], Any]) -> Result:
    """Run the jobs here; a line for each."""
    from ..operations.campaign_run import run_here

    ran = {each.job.title: str(getattr(returned, "run", "done")) for each, returned in run_here(campaign, layers)}
    done = [job.title for job in campaign.jobs if job.title not in ran]
    lines = {**ran, **({"done before": ", ".join(done)} if done else {})}
    return Result({"campaign": campaign.name, "ran": ran, "done_before": done}, lines)


def _words(values: Any) -> str:
    return " ".join(f"{name}={value}" for name, value in values.items())


def _folder_words(folder: Path) -> list[str]:
    return [] if folder == CAMPAIGNS else ["--campaign-dir", str(folder)]
