"""What the JSON API answers, as models from which its OpenAPI description follows."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ...core.text import shortened
from ..jobs import UNSUCCESSFUL, Job, Request, State
from ..rows import WorkerRow

Action = Literal["pause", "resume", "stop", "skip", "retry", "move"]
"""What a person can do with a job."""

JobId = Annotated[int, Field(ge=1, le=2**31 - 1)]

_ERROR = 300  # of an error in a list [characters]


class View(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(extra="forbid")


class Problem(View):
    """Why a request was refused."""

    detail: str


class OwnerView(View):
    """The process that runs the last attempt of a job."""

    host: str
    pid: int
    slot: str


class JobView(View):
    """A job in the list. Times are seconds since 1970."""

    id: int
    name: str
    workflow: str
    state: State
    waits: str = Field(description="Why a queued job does not run yet; empty if only a free worker is missing.")
    request: Request | None = Field(description="What a person wants of the attempt that runs.")
    actions: list[Action] = Field(description="What can be done with the job now.")
    priority: int
    depends_on: dict[int, State] = Field(description="State of each job that must be done before, by ID.")
    steps: int = Field(description="Finished steps of the last attempt.")
    attempt: int
    failures: int
    max_attempts: int
    owner: OwnerView | None
    run_ids: list[str]
    error: str | None = Field(description="Shortened in lists.")
    created: float
    started: float | None
    ended: float | None
    not_before: float | None
    retry_at: float | None

    @classmethod
    def of(cls, job: Job) -> "JobView":
        """The view of a job in a list."""
        return cls(**_facts(job) | {"error": shortened(job.error, _ERROR) if job.error else None})


class JobDetail(JobView):
    """A job in full."""

    config: dict[str, Any]
    folder: str
    lease: float = Field(description="Time without a finished step after which it is taken for hung, in seconds.")
    needs: str | None
    version: str

    @classmethod
    def of(cls, job: Job) -> "JobDetail":
        """The view of one job."""
        more = {name: getattr(job, name) for name in ("folder", "lease", "needs", "version")}
        return cls(**_facts(job), **more, config=dict(job.config))


class QueueView(View):
    """The queue: what runs, what waits in the order of claims, and what ended last."""

    version: int = Field(description="Grows with each change that the dashboard sees.")
    counts: dict[State, int] = Field(description="All jobs, also those that are not listed.")
    jobs: list[JobView]


class LogView(View):
    """The end of a log file."""

    text: str
    is_whole: bool
    problem: str = Field(description="Why there is no text; empty if there is one.")


class WorkerView(View):
    """A worker. Times are seconds since 1970, by its own clock."""

    host: str
    slot: str
    pid: int
    device: str | None
    job: int | None
    started: float
    seen: float

    @classmethod
    def of(cls, worker: WorkerRow) -> "WorkerView":
        """The view of a row."""
        return cls(**{name: getattr(worker, name) for name in cls.model_fields})


class CurveView(View):
    """A metric of a run over its steps, thinned out."""

    run_id: str
    run_name: str
    metric: str
    steps: list[int]
    values: list[float]


class LossesView(View):
    """The losses of a job."""

    curves: list[CurveView]
    pages: dict[str, str] = Field(description="Address of each run in the MLflow UI, by run ID.")
    problem: str = Field(description="Why there are none; empty if there are.")
    read: float | None = Field(description="When the store was read, in seconds since 1970.")


class FolderView(View):
    """A folder on the disk of the dashboard's machine."""

    name: str
    path: str
    size: int = Field(description="In bytes.")
    files: int
    is_whole: bool = Field(description="False if counting was ended before its end.")


class DiskView(View):
    """What trainings take on the disk, and what is left."""

    folders: list[FolderView]
    free: int = Field(description="In bytes.")
    total: int = Field(description="In bytes.")
    measured: float | None


class DecisionView(View):
    """What the default policy would do with a checkpoint."""

    path: str
    keep: bool
    reason: str
    size: int = Field(description="In bytes.")
    is_protected: bool


class RetentionView(View):
    """What `metaopt prune` would do with the checkpoints of the dashboard's folder. Nothing is deleted here."""

    decisions: list[DecisionView] = Field(description="Those that would be deleted first; at most 500.")
    kept: int = Field(description="Checkpoints that stay.")
    kept_size: int = Field(description="In bytes.")
    deleted: int = Field(description="Checkpoints that would be deleted.")
    deleted_size: int = Field(description="In bytes.")
    problem: str = Field(description="Why there is no plan, or why a limit is not reached; empty if all is well.")
    read: float | None


class NodeView(View):
    """A data set, a trajectory, a checkpoint or a registered version."""

    kind: str
    name: str
    digest: str
    place: str
    page: str | None = Field(description="Address of its run in the MLflow UI.")
    problem: str = Field(description="The missing link, in words; empty if none is missing.")


class LineageOf(View):
    """A checkpoint, and all that it was made from."""

    path: str
    nodes: list[NodeView] = Field(description="Each before what it was made from.")


class LineageView(View):
    """The lineage of the latest checkpoints of the dashboard's folder."""

    checkpoints: list[LineageOf]
    problem: str
    read: float | None


class HealthView(View):
    """Whether the dashboard and its queue work."""

    status: Literal["ok", "degraded"]
    version: str
    queue: str
    problem: str = Field(description="Why the queue cannot be read; empty if it can.")
    clients: int = Field(description="Open streams of events.")


class Move(View):
    """A new place in the queue; what is left out stays."""

    priority: int | None = Field(default=None, ge=-(10**6), le=10**6)
    after: list[JobId] | None = Field(default=None, max_length=1000)


def actions_of(job: Job) -> list[Action]:
    """What can be done with a job now."""
    if job.state in UNSUCCESSFUL:
        return ["retry"]
    if job.state is State.RUNNING:
        if job.request in (Request.STOP, Request.SKIP):
            return []
        return ["resume" if job.request is Request.PAUSE else "pause", "stop", "skip"]
    if job.state in (State.QUEUED, State.PAUSED):
        return ["resume" if job.state is State.PAUSED else "pause", "stop", "skip", "move"]
    return []


def utc(moment: float) -> str:
    """A time as text, such as `2027-01-31 08:00 UTC`."""
    try:
        return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, OSError, ValueError):
        return "an impossible time"


def _facts(job: Job) -> dict[str, Any]:
    found = {name: getattr(job, name) for name in JobView.model_fields if name not in ("owner", "actions", "run_ids")}
    owner = None if job.owner is None else OwnerView(host=job.owner.host, pid=job.owner.pid, slot=job.owner.slot)
    return {
        **found,
        "depends_on": dict(job.depends_on),
        "run_ids": list(job.run_ids),
        "owner": owner,
        "actions": actions_of(job),
    }
