"""Descriptions of runs and experiments in the MLflow UI, in Markdown."""

from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from .run_list import run_list
from .tags import DESCRIPTION_TAG

_LONGEST_ERROR = 600  # [characters]; the page of a run shows them without scrolling

UNKNOWN_RESULT = "**Result:** none yet"
"""The line of the result while a run is running."""

_EXPERIMENT = """\
metaopt records how networks train, learns an optimizer from the recordings and evaluates it on held-out trainings.

- **Results:** the description of each run has its purpose and its result. The child runs of a *main job* are its \
phases.
- **Comparison:** runs of one kind have the same metrics. Select the child runs of an evaluation and choose *Compare*: \
each run is a contender, `val_loss` its curve, and `speedup` its speed-up over the base optimizer alone (*hold*).
- **Report:** the artifact `report.md` of an evaluation has all tables, the negative controls and the limits.
- **Lineage:** a phase-2 run and the runs that recorded its trajectories link each other; a registered version links \
its run and its evaluations.
- **View:** [the list with data, model and main figures]({view}). The chart symbol above the list plots all runs. \
*Model training* at the top left hides the columns for chatbots.
"""


@dataclass
class Description:
    """The description of a run: a line each for its purpose, its result and links; empty lines are omitted.

    Attributes:
        purpose: what the run does.
        result: what the run found; None while it is running.
        links: related runs, versions and files.
    """

    purpose: str = ""
    result: str | None = None
    links: str = ""

    def update(self, purpose: str | None, result: str | None, links: str | None) -> None:
        """Replace the purpose and the result, and append to the links, where they are given."""
        self.purpose = self.purpose if purpose is None else one_line(purpose)
        self.result = self.result if result is None else one_line(result)
        self.links = self.links if links is None else ". ".join(filter(None, [self.links, one_line(links)]))

    def finish(self, status: str, error: str | None) -> None:
        """Replace the result of a run that failed or was stopped.

        Args:
            status: FINISHED, FAILED or KILLED.
            error: the error of a failed run.
        """
        if status == "FAILED":
            self.result = f"failed: {code(error or 'unknown error')}"
        elif status == "KILLED":
            self.result = "stopped early by Ctrl-C, SIGTERM or a closed terminal"
        else:
            self.result = self.result or ""

    def markdown(self) -> str:
        """The description as text; empty without any line."""
        if not (self.purpose or self.result or self.links):
            return ""
        result = UNKNOWN_RESULT if self.result is None else self.result and f"**Result:** {self.result}"
        return "\n".join(filter(None, [self.purpose, result, self.links]))


def one_line(text: str) -> str:
    """A text with line breaks replaced by spaces."""
    return " ".join(text.split())


def code(text: str) -> str:
    """A text as inline code of Markdown: in one line, without backticks, and shortened."""
    line = one_line(text).replace("`", "'")
    return f"`{line if len(line) <= _LONGEST_ERROR else line[:_LONGEST_ERROR] + ' …'}`"


def describe_experiment(client: MlflowClient, experiment_id: str) -> None:
    """Set the description of an experiment that has none."""
    if _is_described(client, experiment_id):
        return
    try:
        text = _EXPERIMENT.format(view=run_list(experiment_id).removeprefix("/"))
        client.set_experiment_tag(experiment_id, DESCRIPTION_TAG, text)
    except MlflowException:
        if not _is_described(client, experiment_id):  # else another process set it at the same time
            raise


def _is_described(client: MlflowClient, experiment_id: str) -> bool:
    return bool(client.get_experiment(experiment_id).tags.get(DESCRIPTION_TAG))
