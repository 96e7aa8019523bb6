"""What a run did and what came of it, in three lines of Markdown: its description in the UI."""

from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.utils import name_utils
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

_LONGEST_ERROR = 600  # [characters], which the page of a run shows without being asked for more


@dataclass
class Note:
    """The lines of a run's description; empty ones are left out.

    Attributes:
        does: what the run does.
        result: what came of it; None as long as it goes on.
        see: what belongs to it, with links.
    """

    does: str = ""
    result: str | None = None
    see: str = ""

    def change(self, does: str | None, result: str | None, see: str | None) -> None:
        """Replace the lines that are given; what belongs to the run is added to what is known to."""
        self.does = self.does if does is None else one_line(does)
        self.result = self.result if result is None else one_line(result)
        self.see = self.see if see is None else ". ".join(filter(None, [self.see, one_line(see)]))

    def end(self, status: str, reason: str | None) -> None:
        """Say how the run ended, where its result does not.

        Args:
            status: FINISHED, FAILED or KILLED.
            reason: the error of a failed run.
        """
        if status == "FAILED":
            self.result = f"failed: {code(reason or 'for an unknown reason')}"
        elif status == "KILLED":
            self.result = "stopped before its end, by Ctrl-C or SIGTERM"
        else:
            self.result = self.result or ""

    def markdown(self) -> str:
        """The whole description; empty where nothing was said."""
        if not (self.does or self.result or self.see):
            return ""
        result = "none yet" if self.result is None else self.result
        return "\n".join(filter(None, [self.does, result and f"**Result:** {result}", self.see]))


def one_line(text: str) -> str:
    """A text without line breaks."""
    return " ".join(text.split())


def code(text: str) -> str:
    """A text in one line that Markdown leaves as it is, shortened to what a page shows at once."""
    line = one_line(text).replace("`", "'")
    return f"`{line if len(line) <= _LONGEST_ERROR else line[:_LONGEST_ERROR] + ' …'}`"


def is_random(name: str | None) -> bool:
    """Whether a run's name is missing or drawn by MLflow (`bold-fox-12`), so that it may be replaced.

    The store draws it where nobody gives one, and leaves no other trace of that. Only MLflow's own words count:
    `sweep-lr-3` is a name that somebody gave. A newer MLflow without these lists keeps all names.
    """
    if not name:
        return True
    predicate, _, rest = name.partition("-")
    noun, _, number = rest.partition("-")
    predicates, nouns = (getattr(name_utils, f"_GENERATOR_{words}", ()) for words in ("PREDICATES", "NOUNS"))
    return number.isdecimal() and predicate in map(str.lower, predicates) and noun in map(str.lower, nouns)


_DESCRIPTION = """\
metaopt records how networks train, learns an optimizer from the recordings, and judges it on unseen trainings.

- Did it work? Each run's description says what it did and its result in three lines. A *main job* has its phases below.
- Runs of one kind have the same metrics. Open the runs below an evaluation, select them, *Compare*: each is one \
contender, `val_loss` its curve, `speedup` how many times sooner than the base optimizer alone (*hold*) it arrives.
- `report.md` among the artifacts of an evaluation has all tables, the controls that must fail, and the limits.
- Phase 2 names the runs that it learned from, and they name it; a registered version names its run and its evaluations.
- Above the list, the chart symbol draws all runs at once; *Model training* at the top left hides what is for chatbots.
"""


def describe_experiment(client: MlflowClient, experiment_id: str) -> None:
    """Give an experiment a description, unless it has one."""
    if _is_described(client, experiment_id):
        return
    try:
        client.set_experiment_tag(experiment_id, MLFLOW_RUN_NOTE, _DESCRIPTION)
    except MlflowException:
        if not _is_described(client, experiment_id):  # else another process was faster
            raise


def _is_described(client: MlflowClient, experiment_id: str) -> bool:
    return bool(client.get_experiment(experiment_id).tags.get(MLFLOW_RUN_NOTE))
