"""`metaopt queue`: add jobs to a queue, look at them, and steer them."""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from datetime import datetime
from pathlib import Path
from socket import gethostname
from typing import Any

import click

from ..core.config import Config
from ..core.errors import JobError
from ..core.text import aligned, counted, printable, shortened
from ..operations.jobs import Job, JobOptions, State
from ..operations.queue import JobQueue
from ..operations.workflow_table import find_workflow, runs_code
from .flags import config_flags
from .options import EPILOG, parsed_config
from .output import Result, show

_ARGUMENTS = {"register": "checkpoint", "evaluate-controller": "controller", "compare": "train"}
_STATES = [each.value for each in State]
_LONGEST = 60  # of a reason in a table [characters]

_HELP = "Queue: a file of SQLite or postgresql://…; by default METAOPT_QUEUE, else queue.db."
_QUEUE = click.option("--queue", help=_HELP)


@click.group("queue", epilog=EPILOG)
def command() -> None:
    """Add jobs to a queue, look at them, and steer them. `metaopt worker` runs them."""


class _Add(click.Command):
    """Its flags are those of the queue; all others belong to the workflow."""

    def __init__(self) -> None:
        own = [each for each in config_flags(JobOptions) if each.name != "config"]
        super().__init__(
            "add",
            callback=_add,
            params=[click.Argument(["workflow"]), *own, click.Option(["--queue"], help=_HELP)],
            help="Add a job.\n\nWORKFLOW is the name of a command, such as train-target. Its flags follow, and are "
            "checked before the job is stored.",
            short_help="Add a job.",
            epilog=EPILOG,
            options_metavar="[OPTIONS] [FLAGS OF THE WORKFLOW]",
            context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "show_default": True},
        )


def _add(workflow: str, queue: str | None, **flags: Any) -> None:
    options = JobOptions.from_mapping(flags)
    with redirect_stdout(sys.stderr):  # libraries print to stdout, which is for the result
        kind: type[Config] = find_workflow(workflow).config_class
        words = click.get_current_context().args
        config = parsed_config(f"metaopt queue add {workflow}", kind, words, _ARGUMENTS.get(workflow))
        with JobQueue(queue) as jobs:
            job = jobs.add(workflow, config.to_mapping(), options)
    following = [["metaopt", "queue", "show", str(job.id), *_place(queue)], worker_words([job], queue)]
    show(Result({"job": job.to_mapping()}, {"added": f"job {job.id}, {job.name}"}, following), "queue")


command.add_command(_Add())


@command.command("list", epilog=EPILOG)
@click.option(
    "--state",
    multiple=True,
    type=click.Choice([each.value for each in State]),
    help="Only jobs in this state; repeatable.",
)
@_QUEUE
def list_command(state: Sequence[str], queue: str | None) -> None:
    """List jobs in the order in which they are claimed."""
    with JobQueue(queue, create=False) as jobs:
        found = jobs.jobs([State(each) for each in state])
    heads = ["id", "state", "priority", "name", "workflow", "attempt", "steps", ""]
    rows = [
        [str(job.id), job.state, str(job.priority), printable(job.name), job.workflow, str(job.attempt), str(job.steps),
         shortened(printable(_remark(job)), _LONGEST)]
        for job in found
    ]  # fmt: skip
    table = "\n".join(aligned([heads, *rows])) if rows else ""
    lines = {} if rows else {"no jobs": "in the queue, or none in these states"}
    show(Result({"jobs": [job.to_mapping() for job in found]}, lines, table=table), "queue")


@command.command("show", epilog=EPILOG)
@click.argument("job", type=int)
@_QUEUE
def show_command(job: int, queue: str | None) -> None:
    """Show a job: its state, its parameters, its runs and its log file."""
    with JobQueue(queue, create=False) as jobs:
        found = jobs.get(job)
    show(Result({"job": found.to_mapping()}, {name: printable(text) for name, text in _lines(found).items()}), "queue")


@command.command("logs", epilog=EPILOG)
@click.argument("job", type=int)
@click.option("--attempt", type=click.IntRange(min=1), help="Number of the attempt; by default the last one.")
@_QUEUE
def logs_command(job: int, attempt: int | None, queue: str | None) -> None:
    """Print the messages of a job."""
    with JobQueue(queue, create=False) as jobs:
        found = jobs.get(job)
    if found.log is None or found.owner is None:
        raise JobError(f"job {job} has no messages: it has not begun")
    file, host = Path(found.log), found.owner.host
    if attempt not in (None, found.attempt):  # of earlier ones only the file is known
        file, host = file.with_name(f"{attempt}.log"), f"the machine of attempt {attempt}"
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        where = "it was written on this machine" if host == gethostname() else f"it is on {host}; read it there"
        raise JobError(f"{file} cannot be read ({error.strerror}): {where}") from error
    lines = {"messages": "none yet"} if not text else {}
    show(
        Result({"job": job, "log": file, "text": text}, lines, table="\n".join(map(printable, text.splitlines()))),
        "queue",
    )


@command.command("move", epilog=EPILOG)
@click.argument("job", type=int)
@click.option("--priority", type=int, help="Its new priority; higher runs first.")
@click.option("--after", help="IDs of all jobs that must be done before, such as 3,4; none for no job.")
@_QUEUE
def move_command(job: int, priority: int | None, after: str | None, queue: str | None) -> None:
    """Change the place of a job that waits."""
    if priority is None and after is None:
        raise click.UsageError("nothing to change; give --priority or --after")
    needed = None if after is None else JobOptions.from_mapping({"after": "" if after == "none" else after}).after
    with JobQueue(queue, create=False) as jobs:
        _show_changed([jobs.move(job, priority, needed)])


def _steering(name: str, method: Callable[[JobQueue, int], Job], summary: str) -> None:
    """Add a command that changes the state of jobs."""

    @command.command(name, epilog=EPILOG, help=summary)
    @click.argument("jobs", type=int, nargs=-1, required=True)
    @_QUEUE
    def steer(jobs: Sequence[int], queue: str | None) -> None:
        with JobQueue(queue, create=False) as opened:
            _show_changed([method(opened, job) for job in jobs])


_steering("pause", JobQueue.pause, "Pause jobs. A running one finishes its step and writes a checkpoint.")
_steering("resume", JobQueue.resume, "Queue paused jobs again; they go on where they stopped.")
_steering("stop", JobQueue.stop, "Stop jobs for good. A running one finishes its step and writes a checkpoint.")
_steering("skip", JobQueue.skip, "Leave jobs out.")
_steering("retry", JobQueue.retry, "Queue jobs again that failed, were stopped or were skipped.")


@command.command("workers", epilog=EPILOG)
@_QUEUE
def workers_command(queue: str | None) -> None:
    """List the workers."""
    with JobQueue(queue, create=False) as jobs:
        found = jobs.workers()
    heads = ["host", "slot", "pid", "device", "job", "last report"]
    rows = [
        [printable(each.host), printable(each.slot), str(each.pid), each.device or "–", str(each.job or "–"),
         _time(each.seen)]
        for each in found
    ]  # fmt: skip
    table = "\n".join(aligned([heads, *rows])) if rows else ""
    facts = {"workers": [vars(each) for each in found]}
    show(Result(facts, {} if rows else {"no workers": "`metaopt worker` starts one"}, table=table), "queue")


def _show_changed(jobs: Sequence[Job]) -> None:
    lines = {f"job {job.id}": f"{job.state}{f', asked to {job.request}' if job.request else ''}" for job in jobs}
    show(Result({"jobs": [job.to_mapping() for job in jobs]}, lines), "queue")


def _remark(job: Job) -> str:
    """What a person wants to know beside the state: a request, what the job waits for, or an error."""
    return f"asked to {job.request}" if job.request else job.waits or job.error or ""


def _lines(job: Job) -> Mapping[str, str]:
    failures = f", {counted(job.failures, 'failure')} of at most {job.max_attempts}"
    lines = {
        "job": f"{job.id}, {job.name}",
        "state": ", ".join(filter(None, [job.state, _remark(job)])),
        "workflow": job.workflow,
        "parameters": " ".join(f"{name}={value}" for name, value in job.config.items() if value not in (None, {}, [])),
        "folder": job.folder,
        "priority": str(job.priority),
        "after": ", ".join(f"{number} ({state})" for number, state in job.depends_on.items()),
        "attempt": f"{job.attempt}{failures}, {counted(job.steps, 'step')}",
        "runs": ", ".join(job.run_ids),
        "messages": job.log or "",
        "host": f"{job.owner.host}, slot {job.owner.slot}, process {job.owner.pid}" if job.owner else "",
        "created": _time(job.created),
        "not before": _time(job.not_before),
        "started": _time(job.started),
        "ended": _time(job.ended),
    }
    return {label: text for label, text in lines.items() if text}


def _time(seconds: float | None) -> str:
    return "" if seconds is None else datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")


def worker_words(jobs: Sequence[Job], queue: str | None) -> list[str]:
    """The command of a worker that runs these jobs."""
    trust = ["--trust-config", "true"] if any(runs_code(job.workflow, job.config) for job in jobs) else []
    return ["metaopt", "worker", *trust, *_place(queue)]


def _place(queue: str | None) -> list[str]:
    return [] if queue is None else ["--queue", queue]
